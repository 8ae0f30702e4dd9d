//! Several instances on one storage: who owns what, and where requests go.

mod fleet;
mod forwarding;
mod link;
#[path = "../live/mod.rs"]
mod live;
mod membership;
mod peer;
mod town;
