//! Looks the ledgers over once after the start, beside the service's work. What is broken is told, in the log and by a
//! metric; serving goes on, since a reader can do more with most of a ledger than with none of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::storage::Storage;
use crate::storage::ledger::{Broken, verify};
use crate::telemetry::Metrics;

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
