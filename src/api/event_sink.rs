//! Service `EventSink`, path `/v1/event_sink`: the ledgers, as the first two generations read them.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::failure::Failure;
use super::{args, checked, reply};
use crate::engine::EngineError;
use crate::machine::slice;
use crate::storage::Storage;
use crate::wire::{Encoded, Exception, GetHistory, GetHistoryParams, Method, SinkEvent};
use crate::woody::{self, MethodKind, Reply, Request, Service};

pub struct EventSink {
    storage: Arc<dyn Storage>,
    /// The configured ledgers.
    ledgers: BTreeSet<String>,
}

// === impl EventSink ===

impl EventSink {
    pub fn new(storage: Arc<dyn Storage>, ledgers: BTreeSet<String>) -> Self {
        Self { storage, ledgers }
    }

    /// A ledger that never got anything is empty, one that is not configured is not found.
    async fn history(&self, params: GetHistoryParams) -> Result<Encoded<SinkEvent>, Failure> {
        let name = std::str::from_utf8(&params.event_sink_id).ok().filter(|name| self.ledgers.contains(*name));
        let (Some(name), Some(ledger)) = (name, self.storage.ledger()) else {
            return Err(Failure::Thrown(Exception::EventSinkNotFound));
        };
        let range = checked(params.range)?;
        let head = ledger.head(name).await.map_err(EngineError::from)?;
        let slice = slice(&range, head.last);
        if slice.is_empty() {
            return Ok(Encoded::default());
        }
        let mut entries: Vec<Bytes> = ledger.entries(name, slice.first, slice.last).await.map_err(EngineError::from)?;
        if slice.backward {
            entries.reverse();
        }
        Ok(Encoded::from_encoded(entries))
    }
}

#[async_trait]
impl Service for EventSink {
    fn name(&self) -> &'static str {
        "EventSink"
    }

    fn method(&self, name: &[u8]) -> Option<MethodKind> {
        (name == GetHistory::NAME.as_bytes()).then_some(MethodKind::Call)
    }

    async fn handle(&self, request: Request) -> Result<Reply, woody::Error> {
        reply::<GetHistory>(request.seqid, self.history(args::<GetHistory>(request.args)?).await)
    }
}
