//! Machinegun: a durable state machine engine.

pub mod config;
pub mod machine;
