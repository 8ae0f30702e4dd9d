//! A ledger as a sink: where a commit can't hold the entries itself, they are a debt like any other.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Content, Delivery, Receipt, Sink, SinkError};
use crate::storage::StorageError;
use crate::storage::ledger::LedgerWriter;

/// Takes events. Changes of life are no part of a ledger.
#[derive(Debug)]
pub struct LedgerSink(Arc<LedgerWriter>);

// === impl LedgerSink ===

impl LedgerSink {
    pub fn new(writer: Arc<LedgerWriter>) -> Self {
        Self(writer)
    }
}

#[async_trait]
impl Sink for LedgerSink {
    async fn publish(&self, delivery: Delivery) -> Result<Receipt, SinkError> {
        let Content::Events { epoch, first, events, behind } = delivery.content else { return Ok(Receipt::default()) };
        let entered = self.0.enter(&delivery.key, epoch, first, &events, behind).await;
        entered.map(|behind| Receipt { behind, taken: None }).map_err(|error| match error {
            StorageError::Unavailable(text) => SinkError::Unavailable(text),
            StorageError::Corrupt(text) => SinkError::Misconfigured(text),
        })
    }

    fn place(&self) -> i64 {
        self.0.place()
    }
}
