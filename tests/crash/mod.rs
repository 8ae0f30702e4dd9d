//! Clients that know what they were told, and a service that is killed under their load.
#![allow(dead_code, reason = "each test takes its part")]

pub mod client;
pub mod dice;
pub mod ledger;
pub mod life;
pub mod notified;
pub mod round;
