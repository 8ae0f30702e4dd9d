//! `machinegun ledger verify` and `ledger head`: what an auditor asks of a stored ledger.
//!
//! Both open the store of the configuration. An embedded one must be held by no service meanwhile; a table may be in use.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;

use crate::config::{self, DynamodbSettings, Settings, StorageSettings};
#[cfg(feature = "dynamodb")]
use crate::storage::dynamodb::Dynamodb;
use crate::storage::embedded::{Embedded, EmbeddedOptions, OpenError};
use crate::storage::ledger::{self, Broken, Head, Ledger};
use crate::storage::{Storage, StorageError};

/// Why a ledger was not looked at, or what is wrong with it. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("`storage.type: memory` keeps no ledger when the service ends: there is none to look at")]
    Memory,
    #[error("storage: {0}")]
    Table(String),
    #[error("{0}; a ledger is looked at while no service runs on it: stop the service, ask again, start it")]
    Running(OpenError),
    #[error(transparent)]
    Open(OpenError),
    #[error("ledger {sink:?} is broken: {broken}")]
    Broken { sink: String, broken: Broken },
    #[error("ledger {sink:?} can't be read: {error}")]
    Unread { sink: String, error: StorageError },
}

/// Entries between two lines of progress.
const TELL_AFTER: i64 = 100_000;

/// Recomputes the whole chain. Returns the line that says where it ends; `tell` gets lines on the way there.
pub async fn verify(
    settings: &Settings,
    sink: &str,
    mut tell: impl FnMut(String) + Send,
) -> Result<String, LedgerError> {
    let store = open(settings).await?;
    let mut told = 0;
    let verified = ledger::verify_telling(ledgers(&store)?, sink, |head| {
        if head.last - told >= TELL_AFTER {
            told = head.last;
            tell(format!("{} entries are whole so far", head.last));
        }
    });
    let verified = verified.await;
    store.close().await;
    match verified {
        Ok(Head::EMPTY) => Ok(nothing(sink)),
        Ok(Head { last, hash }) => Ok(format!("{last} entries, head {hash}")),
        Err(Broken::Storage(error)) => Err(LedgerError::Unread { sink: sink.to_owned(), error }),
        Err(broken) => Err(LedgerError::Broken { sink: sink.to_owned(), broken }),
    }
}

/// Where the ledger ends, as the store noted it: id and hash.
pub async fn head(settings: &Settings, sink: &str) -> Result<String, LedgerError> {
    let store = open(settings).await?;
    let head = ledgers(&store)?.head(sink).await;
    store.close().await;
    match head {
        Ok(Head::EMPTY) => Ok(nothing(sink)),
        Ok(Head { last, hash }) => Ok(format!("{last} {hash}")),
        Err(error) => Err(LedgerError::Unread { sink: sink.to_owned(), error }),
    }
}

fn nothing(sink: &str) -> String {
    format!("0 entries: nothing was ever entered in a ledger named {sink:?}")
}

async fn open(settings: &Settings) -> Result<Arc<dyn Storage>, LedgerError> {
    let embedded = match &settings.storage {
        StorageSettings::Memory => return Err(LedgerError::Memory),
        StorageSettings::Dynamodb(dynamodb) => return open_table(dynamodb).await,
        StorageSettings::Embedded(embedded) => embedded,
    };
    let options = EmbeddedOptions { create: false, ..EmbeddedOptions::new(&embedded.path) };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    let opened = opened.map_err(|error| {
        let detail = error.to_string();
        LedgerError::Open(OpenError::Failed { path: embedded.path.clone(), detail })
    })?;
    match opened {
        Ok(store) => Ok(store),
        Err(error @ OpenError::Locked(_)) => Err(LedgerError::Running(error)),
        Err(error) => Err(LedgerError::Open(error)),
    }
}

#[cfg(feature = "dynamodb")]
async fn open_table(settings: &DynamodbSettings) -> Result<Arc<dyn Storage>, LedgerError> {
    Ok(Dynamodb::open(&settings.into()).await.map_err(|error| LedgerError::Table(error.to_string()))?)
}

#[cfg(not(feature = "dynamodb"))]
async fn open_table(_: &DynamodbSettings) -> Result<Arc<dyn Storage>, LedgerError> {
    Err(LedgerError::Table("this program was built without the feature `dynamodb`".to_owned()))
}

/// The ledgers of a store that was opened: the stores that a configuration can name all have them.
fn ledgers(store: &Arc<dyn Storage>) -> Result<&dyn Ledger, LedgerError> {
    store.ledger().ok_or(LedgerError::Memory)
}

/// What the command line asks of a ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Recompute the chain; names the first broken entry and exits 1 if there is one
    Verify {
        /// The sink's id
        sink: String,
        /// The configuration, in YAML
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the last entry's id and the chain's hash, to be kept elsewhere
    Head {
        /// The sink's id
        sink: String,
        /// The configuration, in YAML
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Does what the command line asks: the answer goes to standard output, progress to standard error.
pub async fn run(command: LedgerCommand) -> Result<(), Box<dyn Error>> {
    let line = match command {
        LedgerCommand::Verify { sink, config } => {
            verify(&config::load(&config)?.0, &sink, |line| eprintln!("{line}")).await?
        }
        LedgerCommand::Head { sink, config } => head(&config::load(&config)?.0, &sink).await?,
    };
    println!("{line}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract::ledgers::{entered, wire_events};
    use crate::storage::contract::sample::{Sample, committed};

    fn settings(storage: StorageSettings) -> Settings {
        Settings::default_with(storage)
    }

    #[tokio::test]
    async fn a_ledger_is_verified_while_no_service_holds_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(StorageSettings::embedded(folder.path()));
        let empty = verify(&settings, "all", drop).await.unwrap_err().to_string();
        assert!(empty.ends_with("holds no store"), "{empty}");

        let options = EmbeddedOptions { free_space_reserve: 0, ..EmbeddedOptions::new(folder.path()) };
        let store = Embedded::open(options).unwrap();
        committed(&*store, entered(&mut Sample::new("one"), &wire_events(1..=3), &["all"])).await;
        let hash = Ledger::head(&*store, "all").await.unwrap().hash;
        let running = verify(&settings, "all", drop).await.unwrap_err().to_string();
        assert!(running.contains("is in use by another process") && running.contains("stop the service"), "{running}");
        store.close().await;

        assert_eq!(verify(&settings, "all", drop).await.unwrap(), format!("3 entries, head {hash}"));
        assert_eq!(head(&settings, "all").await.unwrap(), format!("3 {hash}"));
        let nothing = "0 entries: nothing was ever entered in a ledger named \"al\"";
        assert_eq!(verify(&settings, "al", drop).await.unwrap(), nothing);
        assert_eq!(head(&settings, "al").await.unwrap(), nothing);
    }

    #[tokio::test]
    async fn a_broken_ledger_is_an_error_that_names_the_entry() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { free_space_reserve: 0, ..EmbeddedOptions::new(folder.path()) };
        let store = Embedded::open(options).unwrap();
        committed(&*store, entered(&mut Sample::new("one"), &wire_events(1..=3), &["all"])).await;
        store.close().await;
        {
            let db = fjall::Database::builder(folder.path().join("data")).open().unwrap();
            let entries = db.keyspace("ledger_entries", fjall::KeyspaceCreateOptions::default).unwrap();
            let (key, _) = entries.iter().nth(1).unwrap().into_inner().unwrap();
            entries.remove(key).unwrap();
            db.persist(fjall::PersistMode::SyncAll).unwrap();
        }
        let settings = settings(StorageSettings::embedded(folder.path()));
        let line = verify(&settings, "all", drop).await.unwrap_err().to_string();
        assert_eq!(line, "ledger \"all\" is broken: entry 2 is missing, or out of its place");
    }

    #[tokio::test]
    async fn a_store_in_memory_has_no_ledger_to_look_at() {
        let line = head(&settings(StorageSettings::Memory), "all").await.unwrap_err().to_string();
        assert!(line.starts_with("`storage.type: memory` keeps no ledger"), "{line}");
    }
}
