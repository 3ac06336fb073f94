//! A Redis of one's own.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use crate::{LiveError, process::Process, tools::Tools};

/// What it does for what it was told to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Waits for the disk before it answers (`appendonly yes`, `appendfsync always`).
    Always,
    /// Writes each second (`appendonly yes`, `appendfsync everysec`).
    EverySecond,
    /// Keeps everything in memory alone.
    Never,
}

/// A private Redis server.
#[derive(Debug)]
pub struct Redis {
    folder: PathBuf,
    command: Vec<OsString>,
    process: Option<Process>,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// That there is none, and what to type.
    pub fn start(fsync: Fsync) -> Result<Self, LiveError> {
        Self::start_with(&Tools::of("redis-server")?, fsync, &[])
    }

    /// Starts one of these programs, with more of its own settings.
    ///
    /// # Errors
    /// What the server says.
    pub fn start_with(tools: &Tools, fsync: Fsync, more: &[&str]) -> Result<Self, LiveError> {
        let folder = tempfile::Builder::new().prefix("stepgraph-redis").tempdir()?.keep();
        let (log, sync) = match fsync {
            Fsync::Always => ("yes", "always"),
            Fsync::EverySecond => ("yes", "everysec"),
            Fsync::Never => ("no", "no"),
        };
        let mut command = vec![tools.path("redis-server").into_os_string()];
        command.extend(["--port", "0", "--save", "", "--daemonize", "no", "--appendonly", log].map(OsString::from));
        command.extend(["--appendfsync", sync, "--dir"].map(OsString::from));
        command.push(folder.clone().into_os_string());
        command.push("--unixsocket".into());
        command.push(folder.join("redis.sock").into_os_string());
        command.extend(more.iter().map(OsString::from));
        let mut server = Self {
            folder,
            command,
            process: None,
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it again on the data it has, after [`kill`](Self::kill).
    ///
    /// # Errors
    /// What the server says.
    pub fn start_again(&mut self) -> Result<(), LiveError> {
        let socket = self.socket();
        // A killed server leaves its socket behind, which would look like a new one.
        let _ = std::fs::remove_file(&socket);
        let mut process = Process::start(&self.folder, "KILL", &self.command)?;
        process.wait_until(|_| answers(&socket))?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it.
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

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.take().is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Whether it takes calls: one that is reading its data back accepts connections already, and refuses everything else.
fn answers(socket: &Path) -> bool {
    let pong = b"+PONG\r\n";
    let mut answer = [0; 7];
    UnixStream::connect(socket)
        .and_then(|mut stream| {
            stream.write_all(b"PING\r\n")?;
            stream.read_exact(&mut answer)
        })
        .is_ok_and(|()| answer == *pong)
}
