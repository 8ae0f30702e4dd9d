//! `machinegun ledger verify` and `ledger head`: what an auditor asks of a stored ledger.
//!
//! Both open the store of the configuration, so no service may hold it: a ledger is looked at while it stands still.

use crate::config::{Settings, StorageSettings};
use crate::storage::embedded::{Embedded, EmbeddedOptions, OpenError};
use crate::storage::ledger::{self, Broken, Head, Ledger};
use crate::storage::{Storage, StorageError};

/// Why a ledger was not looked at, or what is wrong with it. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "storage is `memory`, which keeps no ledger when the service ends: only `type: embedded` has one to look at"
    )]
    Memory,
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
    let verified = ledger::verify_telling(&*store, sink, |head| {
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
    let head = store.head(sink).await;
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

async fn open(settings: &Settings) -> Result<std::sync::Arc<Embedded>, LedgerError> {
    let StorageSettings::Embedded(embedded) = &settings.storage else { return Err(LedgerError::Memory) };
    let options = EmbeddedOptions { create: false, ..EmbeddedOptions::new(&embedded.path) };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    let opened = opened.map_err(|error| {
        let detail = error.to_string();
        LedgerError::Open(OpenError::Failed { path: embedded.path.clone(), detail })
    })?;
    opened.map_err(|error| match error {
        error @ OpenError::Locked(_) => LedgerError::Running(error),
        error => LedgerError::Open(error),
    })
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
    async fn a_store_in_memory_has_no_ledger_to_look_at() {
        let line = head(&settings(StorageSettings::Memory), "all").await.unwrap_err().to_string();
        assert!(line.starts_with("storage is `memory`"), "{line}");
    }
}
