//! Compatibility with the original, proved from outside: recordings of its traffic are played against the service.
//!
//! `recording` reads a file, `plan` works out what caused what, `replay` plays both the clients and the processor, and
//! `compare` says what differs, by meaning. `recorded_service` answers straight from a recording: with it the replayer is
//! tested itself.

pub mod compare;
pub mod configuration;
pub mod expected;
pub mod http;
pub mod names;
pub mod node;
pub mod plan;
pub mod recorded_service;
pub mod recording;
pub mod replay;
pub mod service_under_test;
