//! Machinegun: a durable state machine engine for payment systems.
//!
//! The rooms, in the order in which a Call flows through them. Arrows go down only.
//!
//! - [`service`] builds everything from settings and runs until it is told to stop.
//! - [`demo`] is a client and a processor of its own around the service, to see it work.
//! - [`woody`] is the RPC: it checks headers and deadline, and detaches handlers from their connections.
//! - [`api`] turns Thrift calls into engine calls, and the engine's errors into exceptions and statuses.
//! - [`ops`] answers health and metrics.
//! - [`cluster`] says whose shard a machine is in, where several instances share a storage, and passes the request on.
//! - [`engine`] finds the machine's worker, queues, takes the step, commits, answers; and wakes what is due.
//! - [`processor`] asks the client's service what the machine does next.
//! - [`machine`] is the pure core: who may do what in which status, and what a step makes of the record.
//! - [`sink`] is where new events go, Kafka's topics among them; what a sink has not acknowledged is a debt of the record.
//! - [`storage`] makes the step durable: one atomic, conditional write.
//! - [`wire`] is Thrift: the codec and the interface types.
//!
//! Leaves that anyone may use: [`config`] (the file, checked), [`telemetry`] (metrics), [`clock`] (time and randomness),
//! [`tls`] (whom to trust).
//! [`failpoint`] lets tests end the process at places that matter; releases have none.

// A future lies within whoever awaits it: one that is seldom needed and large makes every request so.
#![warn(clippy::large_futures)]

pub mod api;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod engine;
pub mod failpoint;
pub mod machine;
pub mod ops;
pub mod processor;
pub mod service;
pub mod sink;
pub mod storage;
pub mod telemetry;
pub mod tls;
pub mod wire;
pub mod woody;
