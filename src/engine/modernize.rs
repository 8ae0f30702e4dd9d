//! Modernize: events of old formats are given to the client's modernizer outside of the machine's turn, then swapped in
//! by one commit.

use std::sync::Arc;

use bytes::Bytes;

use super::Request;
use super::error::EngineError;
use super::namespace::NamespaceEngine;
use crate::machine::{Impact, MachineId, RequestContext};
use crate::processor::{Modernizer, ModernizerError};
use crate::wire::{Event, HistoryRange, Limits, MachineEvent, Reader, Wire, Writer};

/// Milliseconds that the swap may wait for the machine's turn and the store.
const SWAP_MS: i64 = 60_000;

/// A namespace's modernizer and the format that it brings events to.
#[derive(Clone)]
pub struct ModernizerOptions {
    pub modernizer: Arc<dyn Modernizer>,
    pub current_format_version: i32,
}

// === impl NamespaceEngine: modernizing ===

impl NamespaceEngine {
    /// Brings the events of `range` to the present format. Nothing is stored unless all of them went well. Works
    /// without a lock for as long as it takes; a machine that was started anew meanwhile is left alone.
    pub async fn modernize(
        self: &Arc<Self>,
        id: MachineId,
        range: &HistoryRange,
        context: RequestContext,
        deadline: Option<i64>,
    ) -> Result<(), EngineError> {
        let ModernizerOptions { modernizer, current_format_version } =
            self.options.modernizer.as_ref().ok_or(EngineError::NamespaceNotFound)?;
        let view = self.get(id.clone(), range).await?;
        let mut events = Vec::new();
        for bytes in &view.events {
            let event = decode(bytes)?;
            if event.format_version.is_some_and(|version| version >= *current_format_version) {
                continue;
            }
            let old = event.format_version;
            let machine_event = MachineEvent {
                ns: Bytes::copy_from_slice(self.name.as_str().as_bytes()),
                id: id.as_bytes().clone(),
                event: event.clone(),
            };
            let modern = modernizer.modernize(machine_event, &context, deadline).await?;
            let replace = match (old, modern.format_version) {
                // An event without a version takes whatever comes back.
                (None, _) => true,
                (Some(old), Some(new)) if new > old => true,
                (Some(old), Some(new)) if new == old => false,
                (Some(old), new) => {
                    let text = format!("event {} has format version {old} and came back with {new:?}", event.id);
                    return Err(ModernizerError(text).into());
                }
            };
            if replace {
                let modern = Event { format_version: modern.format_version, data: modern.data, ..event };
                let mut writer = Writer::with_capacity(modern.size_hint());
                modern.write(&mut writer);
                events.push((modern.id, writer.into_bytes()));
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        events.sort_by_key(|(id, _)| *id);
        let deadline = self.shared.clock.now().saturating_add(SWAP_MS);
        let impact = Impact::Modernize { epoch: view.record.epoch, events };
        self.execute(id, impact, Request { context, deadline }).await.map(drop)
    }
}

fn decode(bytes: &Bytes) -> Result<Event, EngineError> {
    Event::read(&mut Reader::new(bytes.clone(), Limits::default()))
        .map_err(|error| crate::storage::StorageError::Corrupt(format!("an event: {error}")).into())
}
