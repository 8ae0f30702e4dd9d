//! Measurements of the service. Results are printed, and saved as JSON under `benches/results/`.
//!
//! `cargo run --release -p benches -- call` drives the real binary, a process of its own, so that its CPU time is counted
//! alone; the clients and the processor live here. `-- cost` counts what the same work costs on DynamoDB, `-- fsync`
//! prints what the disk under a folder costs.

mod broker;
pub mod call;
mod caller;
pub mod cost;
pub mod disk;
pub mod host;
mod loopback;
mod processor;
pub mod report;
mod service;
pub mod table;
mod toll;
mod units;

/// Whatever keeps a measurement from being made, as one line.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
