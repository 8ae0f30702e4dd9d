//! The fjall database: opening it safely, and what its errors mean.
//!
//! The folder: `lock` is held for as long as the store is open, `data/` is fjall's. A new database is made in
//! `data.new/` and renamed when it is complete, so that a start that was cut off leaves nothing half-made behind.

use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{EmbeddedOptions, journal};
use crate::storage::StorageError;

/// The version of keys and keyspaces as a whole; values carry their own. Format 1 had no tags and no ledgers: it is taken
/// up by making their keyspaces.
pub const FORMAT: u8 = 2;

const FORMAT_WITHOUT_LEDGERS: u8 = 1;

/// Tables of a complete database, the engine's own and that of the format included.
const TABLES: usize = 10;
const TABLES_WITHOUT_LEDGERS: usize = 6;

/// fjall's threads for writing tables out and merging them. With as many as there are cores, which is its default, a small
/// host's writes wait for a merge's end: one of two threads leaves merging to the other and spins meanwhile, and a lone
/// one writes nothing out.
const WORKERS: usize = 4;

const FORMAT_KEY: &str = "format";
const FJALL_MARKER: &str = "version";

/// Why the store can't be opened: one line for the one who starts the service.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("storage folder {} is in use by another process: two can't share one", .0.display())]
    Locked(PathBuf),
    #[error("storage folder {} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    #[error("storage folder {} holds no store", .0.display())]
    NoStore(PathBuf),
    #[error("storage folder {} can't be written: {error}", .path.display())]
    NotWritable { path: PathBuf, error: io::Error },
    #[error("storage folder {} has format {found}, this release reads format {FORMAT}: use the release that wrote it, or a newer one", .path.display())]
    UnknownFormat { path: PathBuf, found: String },
    #[error("storage folder {} is damaged: {detail}; restore it from a backup (docs/operate.md)", .path.display())]
    Corrupt { path: PathBuf, detail: String },
    #[error("storage folder {} can't be opened: {detail}", .path.display())]
    Failed { path: PathBuf, detail: String },
}

#[derive(Clone)]
pub struct Engine {
    pub db: Database,
    /// `ns id` -> record
    pub machines: Keyspace,
    /// `ns id epoch event-id` -> event
    pub events: Keyspace,
    /// `ns id notification-id` -> entry
    pub notifications: Keyspace,
    /// `time kind notification-id ns id` -> nothing more
    pub dues: Keyspace,
    /// `ns tag` -> machine id
    pub tags: Keyspace,
    /// `sink` -> last id, hash
    pub ledger_heads: Keyspace,
    /// `sink last-id` -> first id, hash, digests
    pub ledger_blocks: Keyspace,
    /// `sink id` -> entry
    pub ledger_entries: Keyspace,
}

/// Holds the folder. Dropped after the engine.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

// === impl Engine ===

impl Engine {
    pub fn open(options: &EmbeddedOptions) -> Result<(Self, FolderLock), OpenError> {
        let (data, unfinished) = (options.path.join("data"), options.path.join("data.new"));
        let failed = |error: io::Error| OpenError::NotWritable { path: options.path.clone(), error };
        if !options.create && !data.try_exists().map_err(failed)? {
            return Err(OpenError::NoStore(options.path.clone()));
        }
        let lock = FolderLock::take(&options.path)?;
        if !data.try_exists().map_err(failed)? {
            if unfinished.try_exists().map_err(failed)? {
                // Nothing was ever acknowledged from here: it was not yet in its place.
                std::fs::remove_dir_all(&unfinished).map_err(failed)?;
            }
            drop(Self::open_guarded(options, &unfinished)?);
            // IMPORTANT: the rename is on disk before anything is acknowledged.
            std::fs::rename(&unfinished, &data).map_err(failed)?;
            File::open(&options.path).and_then(|folder| folder.sync_all()).map_err(failed)?;
        } else if let Some(missing) = missing_part(&data).map_err(failed)? {
            let detail = format!("data/{missing} is missing");
            return Err(OpenError::Corrupt { path: options.path.clone(), detail });
        } else if let Some(damage) = journal::check(&data).map_err(failed)? {
            return Err(OpenError::Corrupt { path: options.path.clone(), detail: damage });
        }
        Ok((Self::open_guarded(options, &data)?, lock))
    }

    /// fjall asserts on some damage; that is a refusal like any other.
    fn open_guarded(options: &EmbeddedOptions, data: &Path) -> Result<Self, OpenError> {
        catch_unwind(AssertUnwindSafe(|| Self::open_at(options, data))).unwrap_or_else(|panic| {
            let detail = panic_text(&*panic);
            Err(OpenError::Corrupt { path: options.path.clone(), detail })
        })
    }

    fn open_at(options: &EmbeddedOptions, data: &Path) -> Result<Self, OpenError> {
        let refused = |error: fjall::Error| open_error(&options.path, error);
        // IMPORTANT: counted before fjall opens the folder, which makes what it misses.
        let tables = tables(data).unwrap_or(0);
        let db =
            Database::builder(data).cache_size(options.cache_size).worker_threads(WORKERS).open().map_err(refused)?;
        let found = check_format(&db, &options.path)?;
        if found == Some(FORMAT) && tables < TABLES {
            let detail = "data/keyspaces/* is missing".to_owned();
            return Err(OpenError::Corrupt { path: options.path.clone(), detail });
        }
        let keyspace = |name| {
            db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_size))
                .map_err(refused)
        };
        let engine = Self {
            machines: keyspace("machines")?,
            events: keyspace("events")?,
            notifications: keyspace("notifications")?,
            dues: keyspace("dues")?,
            tags: keyspace("tags")?,
            ledger_heads: keyspace("ledger_heads")?,
            ledger_blocks: keyspace("ledger_blocks")?,
            ledger_entries: keyspace("ledger_entries")?,
            db,
        };
        if found == Some(FORMAT_WITHOUT_LEDGERS) {
            // IMPORTANT: noted when all keyspaces are there: until then it can be begun again.
            note_format(&engine.db).map_err(refused)?;
        }
        Ok(engine)
    }
}

fn tables(data: &Path) -> io::Result<usize> {
    let mut tables = 0;
    for table in std::fs::read_dir(data.join("keyspaces"))? {
        tables += usize::from(table?.path().is_dir());
    }
    Ok(tables)
}

/// What a complete database would have. fjall takes what is missing for what was never made: it begins anew, and deletes
/// the tables that nothing names any more.
///
/// IMPORTANT: looked for before fjall touches the folder.
fn missing_part(data: &Path) -> io::Result<Option<&'static str>> {
    if !data.join(FJALL_MARKER).try_exists()? {
        return Ok(Some(FJALL_MARKER));
    }
    // Without the first, fjall would delete all the others; without the second, the format is not known.
    for known in ["keyspaces/0", "keyspaces/1"] {
        if !data.join(known).try_exists()? {
            return Ok(Some(known));
        }
    }
    for table in std::fs::read_dir(data.join("keyspaces"))? {
        let table = table?.path();
        if table.is_dir() && !table.join("current").try_exists()? {
            return Ok(Some("keyspaces/*/current"));
        }
    }
    // Which format it is, only an opened database tells.
    if tables(data)? < TABLES_WITHOUT_LEDGERS {
        return Ok(Some("keyspaces/*"));
    }
    for file in std::fs::read_dir(data)? {
        if file?.path().extension().is_some_and(|extension| extension == "jnl") {
            return Ok(None);
        }
    }
    Ok(Some("*.jnl"))
}

/// IMPORTANT: the format is written, and synced, before the first keyspace of machines is made: machines without a
/// format are damage, never a new store. Returns the format that was found; none in a new database.
fn check_format(db: &Database, path: &Path) -> Result<Option<u8>, OpenError> {
    let refused = |error: fjall::Error| open_error(path, error);
    let used = db.keyspace_exists("machines");
    let meta = db.keyspace("meta", KeyspaceCreateOptions::default).map_err(refused)?;
    match meta.get(FORMAT_KEY).map_err(refused)? {
        Some(value) if *value == [FORMAT] => Ok(Some(FORMAT)),
        Some(value) if *value == [FORMAT_WITHOUT_LEDGERS] => Ok(Some(FORMAT_WITHOUT_LEDGERS)),
        Some(value) => {
            let found = value.first().map_or_else(|| "nothing".to_owned(), u8::to_string);
            Err(OpenError::UnknownFormat { path: path.to_owned(), found })
        }
        None if used => {
            Err(OpenError::Corrupt { path: path.to_owned(), detail: "its format is not recorded".to_owned() })
        }
        None => {
            note_format(db).map_err(refused)?;
            Ok(None)
        }
    }
}

fn note_format(db: &Database) -> fjall::Result<()> {
    db.keyspace("meta", KeyspaceCreateOptions::default)?.insert(FORMAT_KEY, [FORMAT])?;
    db.persist(PersistMode::SyncAll)
}

// === impl FolderLock ===

impl FolderLock {
    fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => OpenError::NotAFolder(path.to_owned()),
            _ => OpenError::NotWritable { path: path.to_owned(), error },
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn open_error(path: &Path, error: fjall::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        fjall::Error::Locked => OpenError::Locked(path),
        fjall::Error::InvalidVersion(version) => {
            let found = version.map_or_else(|| "fjall unknown".to_owned(), |version| format!("fjall {version:?}"));
            OpenError::UnknownFormat { path, found }
        }
        fjall::Error::Io(error) => OpenError::Failed { path, detail: error.to_string() },
        fjall::Error::Storage(fjall::LsmError::Io(error)) => OpenError::Failed { path, detail: error.to_string() },
        error => OpenError::Corrupt { path, detail: format!("{error:?}") },
    }
}

/// What an error of the engine means to the caller of a read.
pub fn read_error(error: fjall::Error) -> StorageError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            StorageError::Unavailable(error.to_string())
        }
        fjall::Error::Poisoned => StorageError::Unavailable("the store has failed".to_owned()),
        error => StorageError::Corrupt(format!("{error:?}")),
    }
}

pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("the engine panicked");
    // One line, as every error is told.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
