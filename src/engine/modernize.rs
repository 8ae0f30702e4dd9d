//! Modernize: events of old formats are given to the client's modernizer outside of the machine's turn, then swapped in
//! by one commit.

use std::sync::Arc;

use bytes::Bytes;

use super::Request;
use super::error::EngineError;
use super::namespace::NamespaceEngine;
use super::worker::Worker;
use crate::failpoint::{self, Failpoint};
use crate::machine::{Impact, MachineId, Record, RequestContext, Slice};
use crate::processor::{Modernizer, ModernizerError};
use crate::wire::{Event, HistoryRange, Limits, MachineEvent, Reader, Wire, Writer};

/// Milliseconds that the swap may wait for the machine's turn and the store.
const SWAP_MS: i64 = 60_000;

/// How far apart events are read together to see which format they have now.
const PAGE: i64 = 500;

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
        let most = self.options.policy.limits.step_size;
        let (mut events, mut size) = (Vec::new(), 0);
        for bytes in &view.events {
            let event = decode(bytes)?;
            if event.format_version.is_some_and(|version| version >= *current_format_version) {
                continue;
            }
            let old = event.format_version;
            let machine_event =
                MachineEvent { ns: self.wire_name.clone(), id: id.as_bytes().clone(), event: event.clone() };
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
                let bytes = writer.into_bytes();
                size += bytes.len();
                // All of it is one commit, as a step is.
                if size > most {
                    let text = format!(
                        "the modernized events up to {} have {size} bytes, limits.step_size allows {most}: \
                         modernize fewer at once, by a range with a limit",
                        modern.id
                    );
                    return Err(ModernizerError(text).into());
                }
                events.push((modern.id, bytes));
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        events.sort_by_key(|(id, _)| *id);
        let deadline = self.shared.clock.now().saturating_add(SWAP_MS);
        let impact = Impact::Modernize { epoch: view.record.epoch, events };
        failpoint::reached(Failpoint::Modernized);
        self.execute(id, impact, Request { context, deadline }).await.map(drop)
    }
}

// === impl Worker: the swap ===

impl Worker {
    /// Of events in their new format, those whose present version is still lower: another Modernize may have come
    /// between, with a newer one.
    pub(super) async fn still_older(
        &self,
        record: &Arc<Record>,
        events: &[(i64, Bytes)],
    ) -> Result<Vec<(i64, Bytes)>, EngineError> {
        let mut older = Vec::with_capacity(events.len());
        let mut rest = events;
        while let Some((first, _)) = rest.first() {
            let here = rest.partition_point(|(id, _)| id - first < PAGE);
            let (page, behind) = rest.split_at(here);
            rest = behind;
            let last = page.last().map_or(*first, |(id, _)| *id);
            let present = self.events(record, &Slice { first: *first, last, backward: false }).await?;
            for (id, modern) in page {
                let stored = present.get((id - first) as usize).map(decode).transpose()?;
                let stored = stored.and_then(|event| event.format_version);
                // None is lower than any; an event without a version takes whatever came back.
                if stored.is_none() || stored < decode(modern)?.format_version {
                    older.push((*id, modern.clone()));
                }
            }
        }
        Ok(older)
    }
}

fn decode(bytes: &Bytes) -> Result<Event, EngineError> {
    Event::read(&mut Reader::new(bytes.clone(), Limits::default()))
        .map_err(|error| crate::storage::StorageError::Corrupt(format!("an event: {error}")).into())
}
