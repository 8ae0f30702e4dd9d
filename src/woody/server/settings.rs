//! What bounds a server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire;

#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Connections served at once.
    pub max_connections: usize,
    /// Connections that wait, unanswered, for one of those to end. Past it: 503 and close.
    pub max_waiting_connections: usize,
    /// From a request's first byte (on a new connection: from its start) to the end of its headers.
    pub header_read_timeout: Duration,
    /// From a request's first byte to the last of its reply; past it the connection closes, even while a handler runs, which
    /// goes on to its end. None: as long as it takes.
    pub exchange_timeout: Option<Duration>,
    /// How long a kept-alive connection may stay silent between requests. Peers keep theirs up to 150 s, and a server
    /// that closes first causes sporadic unknown results.
    pub idle_timeout: Duration,
    /// The longest silence within a request's body.
    pub body_read_timeout: Duration,
    /// The longest time in which a client takes not one byte of a reply.
    pub write_timeout: Duration,
    /// In bytes. A larger body is refused, and never buffered past this.
    pub max_body_size: usize,
    /// How long a stop waits for running exchanges and handlers; zero means not at all.
    pub shutdown_timeout: Duration,
    /// What handlers' readers accept.
    pub limits: wire::Limits,
}

/// How many connections there are now, for metrics.
#[derive(Debug, Default)]
pub struct Connections {
    pub(super) open: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) refused: AtomicU64,
}

// === impl ServerSettings ===

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_waiting_connections: 1024,
            header_read_timeout: Duration::from_secs(5),
            exchange_timeout: None,
            idle_timeout: Duration::from_secs(300),
            body_read_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            max_body_size: 64 * 1024 * 1024,
            shutdown_timeout: Duration::from_secs(5),
            limits: wire::Limits::default(),
        }
    }
}

// === impl Connections ===

impl Connections {
    /// Being served.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Accepted, waiting for a place.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Answered 503 so far, because too many were waiting.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
