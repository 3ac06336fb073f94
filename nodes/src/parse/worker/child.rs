//! The worker's side.

use std::{
    env,
    io::{self, Read, Write},
    process,
};

use rlimit::Resource;

use super::{
    super::{ParseError, ParseLimits, Parsed, pdf},
    ARGUMENT,
};

/// How the Rust runtime ends a process that panicked.
pub(super) const PANICKED: i32 = 101;
/// How a worker ends that could not begin.
const UNFIT: i32 = 70;

/// Turns this process into a PDF worker if a parent asked for one, and then never returns. Stands first in `main`,
/// before threads are started and settings read; does nothing in any other process.
///
/// ```no_run
/// use stepgraph_nodes::parse::run_worker_if_asked;
///
/// run_worker_if_asked();
/// // From here on it is the program itself.
/// ```
pub fn run_worker_if_asked() {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) {
        return;
    }
    let limits = arguments
        .next()
        .and_then(|limits| serde_json::from_str(limits.to_str()?).ok());
    process::exit(
        match limits
            .ok_or_else(|| io::Error::other("limits missing"))
            .and_then(|limits| serve(&limits))
        {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(io::stderr(), "{error}");
                UNFIT
            }
        },
    );
}

fn serve(limits: &ParseLimits) -> io::Result<()> {
    confine(limits)?;
    let mut bytes = Vec::new();
    let guard = u64::try_from(limits.upload_bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    io::stdin().lock().take(guard).read_to_end(&mut bytes)?;
    let answer: Result<Parsed, ParseError> = pdf::parse(bytes, limits);
    let answer = serde_json::to_vec(&answer)?;
    let length = u64::try_from(answer.len()).map_err(io::Error::other)?;
    let mut output = io::stdout().lock();
    output.write_all(&length.to_be_bytes())?;
    output.write_all(&answer)?;
    output.flush()
}

/// Puts the process under limits that the system keeps. Without them there is no reading, except that only Linux is
/// known to honour the one on address space.
fn confine(limits: &ParseLimits) -> io::Result<()> {
    let seconds = limits.cpu.as_secs().max(1);
    rlimit::setrlimit(Resource::CPU, seconds, seconds + 1)?;
    rlimit::setrlimit(Resource::FSIZE, 0, 0)?;
    rlimit::setrlimit(Resource::CORE, 0, 0)?;
    match rlimit::setrlimit(Resource::AS, limits.memory_bytes_max, limits.memory_bytes_max) {
        Err(error) if cfg!(target_os = "linux") => Err(error),
        _ => Ok(()),
    }
}
