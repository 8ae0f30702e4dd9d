//! Machinegun: a durable state machine engine.
