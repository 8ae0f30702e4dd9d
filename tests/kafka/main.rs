//! Events in Kafka: byte for byte as the original wrote them, in order, and each at least once.

mod broker;
mod consumer;
mod crash;
#[path = "../crash/dice.rs"]
mod dice;
mod faults;
mod golden;
#[path = "../process/mod.rs"]
mod process;
mod service;
