//! Machinegun: a durable state machine engine.

pub mod clock;
pub mod engine;
pub mod machine;
pub mod processor;
pub mod storage;
pub mod telemetry;
pub mod wire;
