//! Machinegun: a durable state machine engine.

pub mod clock;
pub mod wire;
pub mod woody;
