//! A Qdrant of one's own: its engine, behind its wire.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    LiveError,
    process::Process,
    tools::{python_with, repository},
};

/// The client's servicer classes and the engine, to the version.
const WHEELS: [&str; 2] = ["qdrant-client==1.20.0", "qdrant-edge-py==0.9.0"];
/// What one of the wheels brings, looked for to see whether they are installed.
const MODULE: &str = "qdrant_edge";
/// Names the server to test on in place of a private one.
const ELSEWHERE: &str = "QDRANT_URL";

/// A private server over Qdrant's engine (`tests/qdrant/server.py`), or the one that `QDRANT_URL` names.
#[derive(Debug)]
pub struct Qdrant {
    url: String,
    own: Option<Own>,
}

/// A call as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The `traceparent` beside it.
    pub trace: Option<String>,
    /// The tenants that it names, in filters and in points.
    pub tenants: Vec<String>,
}

#[derive(Debug)]
struct Own {
    folder: PathBuf,
    command: Vec<OsString>,
    process: Option<Process>,
}

impl Qdrant {
    /// Starts one, unless `QDRANT_URL` names one.
    ///
    /// # Errors
    /// That there is none, and what to type.
    pub fn start() -> Result<Self, LiveError> {
        match std::env::var(ELSEWHERE) {
            Ok(url) if !url.is_empty() => Ok(Self { url, own: None }),
            Ok(_) | Err(_) => Self::start_own(),
        }
    }

    /// Starts one, to be killed.
    ///
    /// # Errors
    /// That there is none, and what to type.
    pub fn start_own() -> Result<Self, LiveError> {
        let python = python_with("qdrant", &WHEELS, MODULE)?;
        let folder = tempfile::Builder::new().prefix("stepgraph-qdrant").tempdir()?.keep();
        let script = repository().join("tests/qdrant/server.py");
        let command = vec![python.into_os_string(), script.into_os_string(), "--folder".into()];
        let mut own = Own {
            command: [command, vec![folder.clone().into_os_string()]].concat(),
            folder,
            process: None,
        };
        let port = own.start(None)?;
        Ok(Self {
            url: format!("http://127.0.0.1:{port}"),
            own: Some(own),
        })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The calls it was sent so far.
    ///
    /// # Errors
    /// It is not ours, or has not told.
    pub fn calls(&self) -> Result<Vec<Call>, LiveError> {
        let own = self.own.as_ref();
        let own = own.ok_or_else(|| LiveError::new("the server is not ours"))?;
        let told = std::fs::read_to_string(own.folder.join("calls"))?;
        let call = |line: &str| {
            let mut parts = line.split('\t');
            let name = parts.next()?.to_owned();
            let trace = parts.next()?;
            Some(Call {
                name,
                trace: (!trace.is_empty()).then(|| trace.to_owned()),
                tenants: parts.next()?.split_whitespace().map(ToOwned::to_owned).collect(),
            })
        };
        Ok(told.lines().filter_map(call).collect())
    }

    /// Kills it.
    ///
    /// # Errors
    /// That it did not run, or is not ours.
    pub fn kill(&mut self) -> Result<(), LiveError> {
        let process = self.own.as_mut().and_then(|own| own.process.take());
        process
            .ok_or_else(|| LiveError::new("no server of our own runs"))?
            .kill()
    }

    /// Starts it again at the same address, on the data it has.
    ///
    /// # Errors
    /// What the server says.
    pub fn start_again(&mut self) -> Result<(), LiveError> {
        let port = self.url.rsplit(':').next().map(ToOwned::to_owned);
        let own = self
            .own
            .as_mut()
            .ok_or_else(|| LiveError::new("the server is not ours"))?;
        own.start(port.as_deref()).map(drop)
    }
}

impl Own {
    /// Starts the program and gives the port it has taken.
    fn start(&mut self, port: Option<&str>) -> Result<String, LiveError> {
        let told = self.folder.join("port");
        // A killed server leaves its own behind, which would look like a new one.
        let _ = std::fs::remove_file(&told);
        let mut command = self.command.clone();
        if let Some(port) = port {
            command.extend(["--port", port].map(OsString::from));
        }
        let mut process = Process::start(&self.folder, "KILL", &command)?;
        process.wait_until(|_| Path::new(&told).is_file())?;
        self.process = Some(process);
        Ok(std::fs::read_to_string(&told)?.trim().to_owned())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.process.take().is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
