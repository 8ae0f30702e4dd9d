//! Values of the event topics: one [`SinkEvent`] each, without an envelope.

use bytes::Bytes;

use super::value::Value;
use crate::{thrift_struct, thrift_union};

thrift_union! {
    pub enum SinkEvent {
        1 => event: Event(MachineEvent),
    }
}

thrift_struct! {
    pub struct MachineEvent {
        1 => source_ns: required Bytes,
        2 => source_id: required Bytes,
        3 => event_id: required i64,
        4 => created_at: required Bytes,
        5 => format_version: optional i32,
        6 => data: required Value,
    }
}
