//! A server on a real port, with a clock that stands at the beginning of 2030.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use machinegun::clock::{Clock, ClockHand};
use machinegun::woody::{Connections, Server, ServerSettings};
use std::net::SocketAddr;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::idl::{Seen, Svc};
use crate::peer::{Answer, PATIENCE, Peer, Request};

/// 2030-01-01T00:00:00Z
pub const NOW: i64 = 1_893_456_000_000;

pub struct World {
    pub address: SocketAddr,
    pub hand: ClockHand,
    pub gate: Arc<Semaphore>,
    pub connections: Arc<Connections>,
    pub served: JoinHandle<()>,
    seen: mpsc::Receiver<Seen>,
    done: mpsc::Receiver<Bytes>,
    stop: Arc<Notify>,
}

/// Lets everything go on until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes true in time");
}

pub async fn world() -> World {
    world_with(|_| {}).await
}

pub async fn world_with(change: impl FnOnce(&mut ServerSettings)) -> World {
    let mut settings = ServerSettings::default();
    change(&mut settings);
    let (clock, hand) = Clock::manual(NOW);
    let (seen, seen_by) = mpsc::channel(10_000);
    let (done, done_by) = mpsc::channel(10_000);
    let gate = Arc::new(Semaphore::new(0));
    let plain = |_: http::request::Parts| async { Response::new(Bytes::from_static(b"plain")) };
    let server = Server::bind("[::]:0".parse().expect("an address"), settings, clock).expect("a free port");
    let server = server
        .route("/v1/svc", Arc::new(Svc { seen, gate: gate.clone(), done }))
        .plain("/health", Arc::new(plain))
        .plain("/healthz/*", Arc::new(plain))
        .plain("/metrics", Arc::new(plain));
    let address = SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
    let connections = server.connections();
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let served = tokio::spawn(server.serve(async move { stopped.notified().await }, async {}));
    World { address, hand, gate, connections, served, seen: seen_by, done: done_by, stop }
}

// === impl World ===

impl World {
    pub async fn connect(&self) -> Peer {
        Peer::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub async fn exchange(&self, request: &Request) -> Answer {
        self.connect().await.exchange(request).await
    }

    /// What the next handler was asked.
    pub async fn seen(&mut self) -> Seen {
        tokio::time::timeout(PATIENCE, self.seen.recv()).await.expect("a call in time").expect("a service")
    }

    /// The next handler to come to its end.
    pub async fn done(&mut self) -> Bytes {
        tokio::time::timeout(PATIENCE, self.done.recv()).await.expect("an end in time").expect("a service")
    }

    pub fn nothing_was_called(&mut self) {
        assert!(self.seen.try_recv().is_err(), "a handler was called");
    }

    /// What handlers were asked so far, and what they came to.
    pub fn forget(&mut self) {
        while self.seen.try_recv().is_ok() {}
        while self.done.try_recv().is_ok() {}
    }

    pub fn open(&self) {
        self.gate.add_permits(1);
    }

    pub fn stop(&self) {
        self.stop.notify_one();
    }

    pub async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.served).await.expect("stopped in time").expect("no panic");
    }
}
