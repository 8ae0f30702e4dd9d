//! The Thrift wire: a strict binary codec over bytes in memory, and the interface types of all three generations.
//!
//! A [`Reader`] walks a request's [`bytes::Bytes`] and hands out slices of it, never copies; a [`Writer`] appends to one
//! buffer. Every length is checked against what is left before anything is allocated, containers are never
//! pre-allocated from a claimed length, and nesting is bounded, so that no input can crash or starve the service.
//! An opaque [`Value`] is checked once and kept as the bytes it came in.
//!
//! The types are declared once, close to `thrift-idl/` (a test holds the two equal), by the macros of `declare`.

mod automaton;
mod codec;
mod declare;
pub mod event_sink;
pub mod exception;
mod history;
pub mod lifecycle_sink;
pub mod message;
mod method;
pub mod notification_id;
mod primitive;
mod processor;
pub mod schema;
mod skip;
mod state;
pub mod timestamp;
mod value;
mod value_text;

pub use automaton::*;
pub use codec::{Error, Limits, Reader, Type, Wire, Writer};
pub use exception::Exception;
pub use history::History;
pub use message::{Header, HeaderError, MessageType};
pub use method::{Method, Undeclared, Void, read_args, read_reply, write_call, write_reply};
pub use processor::*;
pub use state::*;
pub use value::Value;
pub use value_text::value_text;
