//! Machinegun: a durable state machine engine.

<<<<<<< HEAD
pub mod clock;
pub mod engine;
pub mod machine;
pub mod processor;
pub mod storage;
pub mod telemetry;
pub mod wire;
=======
pub mod config;
pub mod machine;
>>>>>>> config
