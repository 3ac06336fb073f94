//! Reading PDFs in a process of their own, which may die without harm.
//!
//! The parent starts `program` with one hidden argument and the limits, an empty environment, the document on its
//! standard input; the worker puts itself under the limits, reads, and answers on its standard output with a length
//! (eight bytes, big endian) and that much JSON. Whatever else happens is told from how it ended.

mod child;

use std::{io, path::PathBuf, process::ExitStatus, process::Stdio, sync::Arc, thread};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
    time,
};

pub use self::child::run_worker_if_asked;
use super::{Limit, ParseError, ParseLimits, Parsed};

/// The argument that makes a process a worker. Nobody types it.
const ARGUMENT: &str = "__parse-pdf-worker";
/// JSON may spell a character of the text in up to six bytes.
const JSON_BYTES_PER_TEXT_BYTE: usize = 6;
/// How much of a worker's last words is looked at.
const LAST_WORDS_MAX: u64 = 16 * 1024;

/// Starts workers, at most one a processor core at a time.
#[derive(Debug, Clone)]
pub struct PdfWorker {
    program: PathBuf,
    limits: ParseLimits,
    free: Arc<Semaphore>,
}

impl PdfWorker {
    /// Workers are runs of `program`, whose `main` starts with [`run_worker_if_asked`].
    #[must_use]
    pub fn new(program: PathBuf, limits: ParseLimits) -> Self {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            program,
            limits,
            free: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Workers are runs of the program that is running now.
    pub fn own_program(limits: ParseLimits) -> io::Result<Self> {
        // On Linux this path stays good when the file is replaced by an upgrade.
        let link = PathBuf::from("/proc/self/exe");
        let program = if cfg!(target_os = "linux") && link.exists() {
            link
        } else {
            std::env::current_exe()?
        };
        Ok(Self::new(program, limits))
    }

    /// What each document is held to.
    #[must_use]
    pub const fn limits(&self) -> &ParseLimits {
        &self.limits
    }

    /// Reads one PDF, waiting for a free core first.
    pub(super) async fn read(&self, bytes: Vec<u8>) -> Result<Parsed, ParseError> {
        let _core = self.free.acquire().await.map_err(|closed| unavailable(&closed))?;
        let limits = serde_json::to_string(&self.limits).map_err(|error| unavailable(&error))?;
        let mut child = Command::new(&self.program)
            .args([ARGUMENT, &limits])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unavailable(&error))?;
        // Dropping the child on the way out of a timeout kills it.
        time::timeout(self.limits.wall, self.talk(&mut child, bytes))
            .await
            .unwrap_or(Err(ParseError::LimitExceeded(Limit::Time(self.limits.wall))))
    }

    async fn talk(&self, child: &mut Child, bytes: Vec<u8>) -> Result<Parsed, ParseError> {
        let (Some(mut input), Some(mut output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(unavailable(&"its pipes are not open"));
        };
        let send = async move {
            // A worker that ends early closes its side; how it ended says why.
            let _ = input.write_all(&bytes).await;
        };
        let answer_max = self.limits.text_bytes_max.saturating_mul(JSON_BYTES_PER_TEXT_BYTE);
        let receive = async {
            let length = usize::try_from(output.read_u64().await?).unwrap_or(usize::MAX);
            if length > answer_max {
                return Err(io::Error::other("its answer is too long"));
            }
            let mut answer = Vec::with_capacity(length.min(1 << 20));
            output
                .take(u64::try_from(length).unwrap_or(u64::MAX))
                .read_to_end(&mut answer)
                .await?;
            if answer.len() == length {
                Ok(answer)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        };
        let last_words = async {
            let mut words = Vec::new();
            let _ = errors.take(LAST_WORDS_MAX).read_to_end(&mut words).await;
            String::from_utf8_lossy(&words).into_owned()
        };
        let ((), answer, last_words) = tokio::join!(send, receive, last_words);
        match answer {
            Ok(answer) => serde_json::from_slice(&answer).map_err(|error| unavailable(&error))?,
            Err(error) => {
                let status = child.wait().await.map_err(|error| unavailable(&error))?;
                tracing::debug!(%status, %last_words, "the PDF worker died");
                Err(self.cause_of_death(status, &last_words, &error))
            }
        }
    }

    /// What a worker that gave no answer died of.
    fn cause_of_death(&self, status: ExitStatus, last_words: &str, error: &io::Error) -> ParseError {
        if last_words.contains("memory allocation of") {
            return ParseError::LimitExceeded(Limit::Memory(self.limits.memory_bytes_max));
        }
        if last_words.contains("overflowed its stack") {
            return ParseError::LimitExceeded(Limit::Depth);
        }
        match (status.code(), signal(status)) {
            (Some(child::PANICKED), _) => ParseError::corrupt("reading it stopped half-way"),
            (Some(code), _) => unavailable(&format!("it ended with {code}: {error}")),
            (None, Some(SIGXCPU | SIGKILL)) => ParseError::LimitExceeded(Limit::Time(self.limits.cpu)),
            (None, Some(SIGSEGV)) => ParseError::LimitExceeded(Limit::Depth),
            (None, _) => ParseError::corrupt("reading it stopped half-way"),
        }
    }
}

const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGXCPU: i32 = 24;

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

fn unavailable(reason: &impl ToString) -> ParseError {
    ParseError::WorkerUnavailable {
        reason: reason.to_string(),
    }
}
