//! Measurements of the service. Results are printed, and saved as JSON under `benches/results/`.
//!
//! `cargo run --release -p benches -- call` drives the real binary, a process of its own, so that its CPU time is counted
//! alone; the clients and the processor live here. `-- soak` looks for its worst moments in minutes of the same load,
//! `-- overload` offers it many times of what it can do. `-- cost` counts what the same work costs on DynamoDB, `-- fsync`
//! prints what the disk under a folder costs.

mod broker;
pub mod call;
mod caller;
pub mod cost;
pub mod disk;
pub mod host;
mod loopback;
pub mod overload;
mod processor;
pub mod report;
mod service;
pub mod soak;
pub mod table;
mod toll;
mod units;

/// Whatever keeps a measurement from being made, as one line.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
