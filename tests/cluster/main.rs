//! Several instances on one storage: who owns what, and where requests go.

mod fleet;
mod forwarding;
mod hand_overs;
mod link;
#[path = "../live/mod.rs"]
mod live;
mod membership;
mod peer;
#[cfg(feature = "dynamodb")]
#[allow(dead_code, reason = "each test takes its part")]
#[path = "../dynamodb/proxy.rs"]
mod proxy;
#[cfg(feature = "dynamodb")]
#[path = "../services/mod.rs"]
mod services;
#[cfg(feature = "dynamodb")]
mod silence;
#[cfg(feature = "dynamodb")]
mod table;
mod town;
