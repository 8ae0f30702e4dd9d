//! Opens the ledgers, and looks them over once after the start, beside the service's work. What is broken is told, in the log and by a
//! metric; serving goes on, since a reader can do more with most of a ledger than with none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::StartError;
use crate::clock::Clock;
use crate::storage::Storage;
use crate::storage::ledger::{Broken, LedgerWriter, verify};
use crate::telemetry::Metrics;

/// The ways into the ledgers, by their names. None if commits hold their entries themselves.
pub(super) async fn writers(
    storage: &Arc<dyn Storage>,
    sinks: &BTreeSet<String>,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<BTreeMap<String, Arc<LedgerWriter>>, StartError> {
    let mut writers = BTreeMap::new();
    for sink in sinks.iter().filter(|_| storage.appended_ledger().is_some()) {
        let writer = LedgerWriter::open(storage.clone(), sink, clock.clone(), metrics.ledger(sink)).await;
        writers.insert(sink.clone(), writer.map_err(|error| StartError::Ledger { sink: sink.clone(), error })?);
    }
    Ok(writers)
}

/// One ledger after the other, each page by page, so that requests never wait for more than a page.
pub(super) async fn check(storage: Arc<dyn Storage>, sinks: BTreeSet<String>, metrics: Arc<Metrics>) {
    let Some(ledger) = storage.ledger() else { return };
    for sink in sinks {
        match verify(ledger, &sink).await {
            Ok(head) => {
                metrics.ledger_broken(&sink, false);
                tracing::info!(sink, entries = head.last, "the ledger is whole");
            }
            // Nothing is known: the metric stays away.
            Err(Broken::Storage(error)) => {
                tracing::warn!(sink, error.reason = %error, "the ledger could not be looked over")
            }
            Err(broken) => {
                metrics.ledger_broken(&sink, true);
                tracing::error!(sink, error.reason = %broken, "the ledger is broken; serving goes on");
            }
        }
    }
}
