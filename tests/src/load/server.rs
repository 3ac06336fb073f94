//! The server's process, and how much memory it has.

use std::{
    ffi::OsString,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use clap::Parser as _;
use serde::Deserialize;
use stepgraph_nodes::service::tls;
use stepgraph_server::cli::{self, Cli};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{self, Command},
    time::timeout,
};

use crate::TestError;

/// The argument with which the program is the server.
const SERVE: &str = "serve";
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Serves the folder on a free port, with the scripted model, until it is told to stop.
#[must_use]
pub fn serve(folder: &Path) -> ExitCode {
    tls::install();
    let arguments = [
        "stepgraph",
        "serve",
        "--port",
        "0",
        "--model",
        "scripted",
        "--json",
        "--data",
    ];
    let arguments = arguments
        .map(OsString::from)
        .into_iter()
        .chain([folder.as_os_str().to_owned()]);
    cli::run(Cli::parse_from(arguments))
}

/// The server; it ends with this.
pub(super) struct Child {
    pub(super) url: String,
    process: process::Child,
}

#[derive(Deserialize)]
struct Listening {
    url: String,
}

impl Child {
    pub(super) async fn start(folder: &Path) -> Result<Self, TestError> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(folder)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("the server has no output")?;
        let mut lines = BufReader::new(output).lines();
        let line = timeout(START_LIMIT, lines.next_line()).await??;
        let listening: Listening = serde_json::from_str(&line.ok_or("the server did not start")?)?;
        Ok(Self {
            url: listening.url,
            process,
        })
    }

    /// Memory in use now, in megabytes.
    pub(super) fn memory_mb(&self) -> Result<f64, TestError> {
        self.status("VmRSS:")
    }

    /// Most memory that was in use so far, in megabytes.
    pub(super) fn peak_mb(&self) -> Result<f64, TestError> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Result<f64, TestError> {
        let id = self.process.id().ok_or("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .ok_or("the system does not tell how much memory a process has")?
            .parse()?;
        Ok(kilobytes / 1024.0)
    }

    pub(super) async fn stop(&mut self) -> Result<(), TestError> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        let id = id
            .and_then(rustix::process::Pid::from_raw)
            .ok_or("the server has ended")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        timeout(STOP_LIMIT, self.process.wait()).await??;
        Ok(())
    }
}
