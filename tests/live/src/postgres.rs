//! A PostgreSQL of one's own.

use std::{
    ffi::OsString,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::getuid;
use sqlx::{Connection as _, PgConnection};

use crate::{
    LiveError,
    process::Process,
    tools::{Tools, run},
};

/// The number of the port is part of the socket's name; no port of the machine is taken.
const SOCKET: &str = ".s.PGSQL.5432";
/// Enough for a few wide pools at once.
const CONNECTIONS_MAX: u32 = 300;
const STARTS_MAX: u32 = 50;

/// A private PostgreSQL server, with everything that makes a commit last switched on as it comes.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    tools: Tools,
    process: Option<Process>,
    databases: AtomicU32,
}

impl Postgres {
    /// The server of this test process, started by whoever asks first.
    ///
    /// # Errors
    /// That there is none, and what to type.
    pub fn shared() -> Result<&'static Self, LiveError> {
        static SHARED: OnceLock<Result<Postgres, LiveError>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::start);
        shared.as_ref().map_err(|error| LiveError::new(error.to_string()))
    }

    /// A server of one's own, to be killed and frozen.
    ///
    /// # Errors
    /// That there is none, and what to type.
    pub fn start() -> Result<Self, LiveError> {
        Self::start_from(Tools::of("postgres")?)
    }

    /// A server of these programs.
    ///
    /// # Errors
    /// What the programs say.
    pub fn start_from(tools: Tools) -> Result<Self, LiveError> {
        let folder = tempfile::Builder::new().prefix("stepgraph-pg").tempdir()?.keep();
        let mut server = Self {
            folder,
            tools,
            process: None,
            databases: AtomicU32::new(0),
        };
        server.prepare()?;
        server.start_again()?;
        Ok(server)
    }

    fn prepare(&mut self) -> Result<(), LiveError> {
        std::fs::create_dir(self.folder.join("socket"))?;
        if getuid().is_root() {
            let nobody = nobody()?;
            // Others may go through, to the folders that are theirs.
            std::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o711))?;
            std::fs::create_dir(self.folder.join("data"))?;
            for own in ["socket", "data"] {
                chown(self.folder.join(own), Some(nobody), None)?;
            }
            if run(as_nobody(Path::new("test")).arg("-x").arg(self.tools.path("postgres"))).is_err() {
                self.tools = self.readable_copy()?;
            }
        }
        let mut initdb = self.program("initdb");
        initdb.arg("-D").arg(self.folder.join("data"));
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--locale=C",
            "--encoding=UTF8",
        ]);
        run(initdb.args(["--wal-segsize=1", "--no-instructions"])).map_err(LiveError::new)?;
        Ok(())
    }

    /// Programs in a folder that `nobody` may not enter, such as one in root's home, are copied beside the data.
    fn readable_copy(&self) -> Result<Tools, LiveError> {
        let install = self.tools.folder().parent().unwrap_or_else(|| self.tools.folder());
        let copy = self.folder.join("programs");
        run(Command::new("cp").arg("-r").arg(install).arg(&copy)).map_err(LiveError::new)?;
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&copy)).map_err(LiveError::new)?;
        Ok(Tools::at(copy.join("bin")))
    }

    fn program(&self, name: &str) -> Command {
        let path = self.tools.path(name);
        if getuid().is_root() {
            as_nobody(&path)
        } else {
            Command::new(path)
        }
    }

    /// Starts it again on the data it has, after [`kill`](Self::kill).
    ///
    /// # Errors
    /// What the server says.
    pub fn start_again(&mut self) -> Result<(), LiveError> {
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(self.folder.join("data"));
        postgres.arg("-k").arg(self.folder.join("socket"));
        postgres.args(["-c", "listen_addresses="]);
        postgres.arg("-c").arg(format!("max_connections={CONNECTIONS_MAX}"));
        let command: Vec<OsString> = [postgres.get_program()]
            .into_iter()
            .chain(postgres.get_args())
            .map(OsString::from)
            .collect();
        let ready = self.folder.join("data/postmaster.pid");
        // A killed server's own processes may take a moment to notice, and until then its data counts as in use.
        let mut last = None;
        for _ in 0..STARTS_MAX {
            let mut process = Process::start(&self.folder, "QUIT", &command)?;
            let started = process.wait_until(|server| {
                let text = std::fs::read_to_string(&ready).unwrap_or_default();
                // A killed server leaves this file behind, so it has to be this one's.
                let own = text.lines().next() == Some(&server.as_raw_nonzero().to_string());
                own && text.lines().nth(7).is_some_and(|line| line.starts_with("ready"))
            });
            match started {
                Ok(()) => {
                    self.process = Some(process);
                    return Ok(());
                }
                Err(error) if error.to_string().contains("still in use") => {
                    process.kill().ok();
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| LiveError::new("the server did not start")))
    }

    /// Kills it as a crash of its machine's power would not, but a crash of its processes does.
    ///
    /// # Errors
    /// That it did not run.
    pub fn kill(&mut self) -> Result<(), LiveError> {
        self.running()?;
        self.process.take().map_or(Ok(()), Process::kill)
    }

    fn running(&self) -> Result<&Process, LiveError> {
        self.process
            .as_ref()
            .ok_or_else(|| LiveError::new("the server does not run"))
    }

    /// A new and empty database.
    ///
    /// # Errors
    /// What the server says.
    pub async fn database(&self) -> Result<String, LiveError> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let failed = |error: sqlx::Error| LiveError::new(format!("cannot make a database: {error}"));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(failed)?;
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok(self.url(&name))
    }

    fn url(&self, database: &str) -> String {
        let socket = self.folder.join("socket");
        format!("postgres://postgres@localhost/{database}?host={}", socket.display())
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket").join(SOCKET)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.take().is_none() {
            // Killed and not started again: nobody else removes the folder.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn nobody() -> Result<u32, LiveError> {
    let output = run(Command::new("id").args(["-u", "nobody"])).map_err(LiveError::new)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse()
        .map_err(|_| LiveError::new(format!("the number of the user nobody is no number: `{text}`")))
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]);
    command.arg(program);
    // The test's own folder may be one that nobody may not enter.
    command.current_dir("/");
    command
}
