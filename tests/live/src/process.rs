//! A server process that cannot outlive the test process.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::LiveError;

/// Starts the server and waits. Its standard input is a pipe that only the test process holds the other end of: when that
/// process ends, even by `kill -9`, the pipe closes, and this ends the server and removes its folder. A group of its own
/// keeps it alive through what the terminal or the test runner sends to the test's group.
const KEEPER: &str = r#"
folder=$1 signal=$2
shift 2
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
echo "$server"
read -r word
[ "$word" = keep ] || kill -s "$signal" "$server" 2>/dev/null
wait "$server"
[ "$word" = keep ] || rm -rf "$folder"
"#;

/// How often it is looked whether a server is ready, and how many times at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS_MAX: u32 = 3_000;

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    keeper: Child,
    server: Pid,
    folder: PathBuf,
}

impl Process {
    /// Starts the command. `signal` ends it at once.
    pub(crate) fn start(folder: &Path, signal: &str, command: &[OsString]) -> Result<Self, LiveError> {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(folder)
            .arg(signal)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let output = keeper
            .stdout
            .take()
            .ok_or_else(|| LiveError::new("no output to read"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let server = line.trim().parse().ok().and_then(Pid::from_raw);
        let server = server.ok_or_else(|| LiveError::new(format!("the server's number is no number: `{line}`")))?;
        Ok(Self {
            keeper,
            server,
            folder: folder.to_owned(),
        })
    }

    /// Waits until `ready` says so of the server's number, or the server is gone.
    pub(crate) fn wait_until(&mut self, ready: impl Fn(Pid) -> bool) -> Result<(), LiveError> {
        for _ in 0..LOOKS_MAX {
            if ready(self.server) {
                return Ok(());
            }
            if !self.is_alive() {
                return Err(self.complaint("ended at once"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(self.complaint("was not ready in time"))
    }

    /// Whether it still runs: it is the keeper's child, which waits for the word before it collects it, so a zombie counts
    /// as gone.
    fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.as_raw_nonzero()));
        stat.is_ok_and(|stat| {
            !stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .trim_start()
                .starts_with('Z')
        })
    }

    fn complaint(&self, what: &str) -> LiveError {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        LiveError::new(format!("the server {what}; it said:\n{log}"))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), LiveError> {
        kill_process(self.server, signal).map_err(|error| LiveError::new(format!("no signal to the server: {error}")))
    }

    /// Kills it with no chance to tidy up, and leaves its folder as it is.
    pub(crate) fn kill(mut self) -> Result<(), LiveError> {
        self.signal(Signal::KILL)?;
        if let Some(mut word) = self.keeper.stdin.take() {
            word.write_all(b"keep\n")?;
        }
        self.keeper.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to be done about a failure here: the folder is left, and the test has its own verdict.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
