//! Woody: the RPC that the peers speak, over HTTP/1.1. Knows HTTP, knows no machine.
//!
//! What a peer sees is fixed to the letter: which header is checked when, which status and class each failure has. A
//! handler is detached from its connection: a client that hangs up stops waiting, it never stops the work.
//!
//! - [`Context`] is what travels with a request: ids, deadline, meta, trace headers.
//! - [`Error`] is how a call fails, and the one place that says how each failure looks on the wire.
//! - [`Server`] answers [`Service`]s and plain HTTP routes on one port.
//! - [`Bodies`] bounds how many bytes of bodies are in memory at once, on both sides.
//! - [`Client`] calls one peer through a bounded pool, and says of each failure whether the peer may have done the work.

mod bodies;
mod client;
mod context;
mod deadline;
mod error;
mod lines;
mod server;

pub use bodies::{Bodies, Held};
pub use client::{Client, ClientSettings};
pub use context::Context;
pub use deadline::{BadDeadline, format_deadline, parse_deadline};
pub use error::{Class, Error, Source};
pub use server::{Connections, MethodKind, Original, Plain, Reply, Request, Server, ServerSettings, Service};
