//! The thread on which an instance keeps its leases.
//!
//! A heartbeat has to go out in time however much else there is to do. Among thousands of tasks each wake-up waits for its
//! turn, and a request about leases takes several: under load the leases of an instance ran out that did nothing but
//! work. Here nothing else has a turn.

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Ends, and all that runs on it, when this is dropped.
#[derive(Debug)]
pub struct LeaseThread {
    pub(super) runtime: Handle,
    _end: DropGuard,
}

// === impl LeaseThread ===

impl LeaseThread {
    pub fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, ended) = (runtime.handle().clone(), CancellationToken::new());
        let until = ended.clone();
        std::thread::Builder::new()
            .name("leases".to_owned())
            .spawn(move || runtime.block_on(until.cancelled_owned()))?;
        Ok(Self { runtime: handle, _end: ended.drop_guard() })
    }
}
