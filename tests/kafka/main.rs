//! Events in Kafka: byte for byte as the original wrote them, in order, and each at least once.

mod broker;
mod consumer;
mod crash;
#[path = "../crash/dice.rs"]
mod dice;
mod faults;
mod golden;
#[path = "../wire_golden/meaning.rs"]
#[allow(dead_code, reason = "the other messages are for another test")]
mod meaning;
#[path = "../process/mod.rs"]
mod process;
mod service;
#[cfg(feature = "dynamodb")]
#[path = "../services/mod.rs"]
mod services;
#[cfg(feature = "dynamodb")]
mod takeover;
