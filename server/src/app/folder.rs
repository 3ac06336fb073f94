//! The data folder: made where it is missing, held by one process at a time, with room to write.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use sqlx::SqlitePool;

use super::{AppError, open_database};

/// Free bytes a disk must have before anything is opened on it: a few documents' worth.
pub const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

const LOCK_NAME: &str = "stepgraph.lock";
/// Most bytes read of what the holder of the lock wrote about itself.
const HOLDER_BYTES_MAX: u64 = 200;

/// A data folder. While a held one lives, no other process can hold it.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: Option<File>,
}

impl DataFolder {
    /// Makes the folder where it is missing and holds it. `purpose` is what the next process is told that finds it
    /// held, for instance the name of the command.
    ///
    /// # Errors
    /// Another process holds it, it cannot be made or written, or its disk is full.
    pub fn hold(path: &Path, purpose: &str) -> Result<Self, AppError> {
        make(path)?;
        check_space(path)?;
        let lock_path = path.join(LOCK_NAME);
        let mut lock = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|source| unwritable(path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(AppError::InUse {
                    path: path.to_owned(),
                    holder: holder(lock),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unwritable(path, source)),
        }
        let about = format!("`stepgraph {purpose}`, process {}", std::process::id());
        lock.set_len(0).map_err(|source| unwritable(path, source))?;
        lock.write_all(about.as_bytes())
            .map_err(|source| unwritable(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: Some(lock),
        })
    }

    /// Holds a folder that must be there: for commands that would find nothing in a new one.
    ///
    /// # Errors
    /// There is no such folder, or as for [`hold`](Self::hold).
    pub fn hold_known(path: &Path, purpose: &str) -> Result<Self, AppError> {
        Self::look(path)?;
        Self::hold(path, purpose)
    }

    /// Looks into a folder that is there, without holding it: for commands that only read, or that the databases'
    /// own locks are enough for.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn look(path: &Path) -> Result<Self, AppError> {
        if path.is_dir() {
            Ok(Self {
                path: path.to_owned(),
                _lock: None,
            })
        } else {
            Err(AppError::NoFolder { path: path.to_owned() })
        }
    }

    /// Who holds the folder now, `None` where nobody does.
    ///
    /// # Errors
    /// The lock cannot be looked at.
    pub fn held_by(path: &Path) -> Result<Option<String>, AppError> {
        let lock = match File::open(path.join(LOCK_NAME)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(unwritable(path, source)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(holder(lock))),
            Err(TryLockError::Error(source)) => Err(unwritable(path, source)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database of records, checkpoints and jobs.
    #[must_use]
    pub fn records(&self) -> PathBuf {
        self.path.join("stepgraph.db")
    }

    /// The keys of tenants, where threads are sealed and kept in this folder or in Redis.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys.db")
    }

    /// The database of chunks and vectors.
    #[must_use]
    pub fn vectors(&self) -> PathBuf {
        self.path.join("vectors.db")
    }

    /// Writes the databases anew, so that nothing is left in their files of what was deleted: the pages of deleted rows
    /// hold their text until then, and the log beside a file holds what was written last.
    ///
    /// # Errors
    /// A database cannot be opened or written.
    pub async fn write_back(&self) -> Result<(), AppError> {
        for path in [self.records(), self.vectors()]
            .into_iter()
            .filter(|path| path.is_file())
        {
            let database = open_database(&path).await?;
            let busy = written_anew(&database).await;
            database.close().await;
            if busy.map_err(|error| AppError::from_database(path.clone(), &error))? {
                tracing::warn!(
                    path = %path.display(),
                    "the file holds text of what was deleted until the next program that opens it has closed it"
                );
            }
        }
        Ok(())
    }
}

/// Whether somebody still reads the log, so that it could not be written back.
async fn written_anew(database: &SqlitePool) -> sqlx::Result<bool> {
    sqlx::query("VACUUM").execute(database).await?;
    let (busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(database)
        .await?;
    Ok(busy != 0)
}

/// Free bytes on the disk of a folder that exists.
///
/// # Errors
/// The system does not say.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The folder holds keys and documents: on Unix only its owner may look into one that we make.
fn make(path: &Path) -> Result<(), AppError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| unwritable(path, source))
}

fn check_space(path: &Path) -> Result<(), AppError> {
    match free_bytes(path) {
        Ok(free) if free < FREE_BYTES_MIN => Err(AppError::DiskFull {
            path: path.to_owned(),
            free: Some(free),
        }),
        Ok(_) => Ok(()),
        Err(source) => Err(unwritable(path, source)),
    }
}

fn unwritable(path: &Path, source: io::Error) -> AppError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppError::DiskFull {
            path: path.to_owned(),
            free: None,
        },
        _ => AppError::Folder {
            path: path.to_owned(),
            source,
        },
    }
}

fn holder(mut lock: File) -> String {
    let mut about = String::new();
    let read = lock
        .rewind()
        .and_then(|()| lock.take(HOLDER_BYTES_MAX).read_to_string(&mut about));
    if read.is_ok() && !about.is_empty() {
        about
    } else {
        "another process".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{AppError, DataFolder};

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::hold(folder.path(), "serve").unwrap();

        let refused = DataFolder::hold(folder.path(), "ingest").unwrap_err();

        let AppError::InUse { holder, .. } = &refused else {
            panic!("{refused}")
        };
        assert!(
            holder.contains("stepgraph serve") && holder.contains(&std::process::id().to_string()),
            "{holder}"
        );
        assert_eq!(DataFolder::held_by(folder.path()).unwrap().as_ref(), Some(holder));
        drop(first);
        assert_eq!(DataFolder::held_by(folder.path()).unwrap(), None);
        DataFolder::hold(folder.path(), "ingest").unwrap();
    }

    #[test]
    fn looking_does_not_need_the_lock_but_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let _held = DataFolder::hold(folder.path(), "serve").unwrap();

        DataFolder::look(folder.path()).unwrap();
        let missing = DataFolder::look(&folder.path().join("absent")).unwrap_err();

        assert!(missing.to_string().contains("stepgraph demo"), "{missing}");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_made_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/data");
        DataFolder::hold(&path, "serve").unwrap();

        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_said_in_one_sentence() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "").unwrap();

        let message = DataFolder::hold(&path, "serve").unwrap_err().to_string();

        assert!(message.contains("--data") && !message.contains('\n'), "{message}");
    }
}
