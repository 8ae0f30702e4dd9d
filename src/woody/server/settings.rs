//! What bounds a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderName;

use crate::wire;
use crate::woody::bodies::Bodies;

#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Connections that are served at once: so many requests to services are worked on, and more wait.
    pub max_connections: usize,
    /// Connections beyond those, which are idle or wait with a request. Past them the one that has been idle for longest
    /// makes room; where none is, the newest is answered 503 and closed.
    pub max_waiting_connections: usize,
    /// A connection that was silent for less is not asked to make room: its client may just be sending the next request,
    /// and a request that meets a close has no known result.
    pub least_idle: Duration,
    /// A header of requests that are worked on by another server too, which passed them on: they have their place there,
    /// and need none here. Two servers whose places are full of each other's requests would wait for each other.
    pub passed_on: Option<HeaderName>,
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
    /// Bytes a second of a body, and of a reply, that a client keeps up with on the whole, beside one such silence.
    pub least_pace: u64,
    /// In bytes. A larger body is refused, and never buffered past this.
    pub max_body_size: usize,
    /// Where requests' bodies count while they are in memory, and answers until they are taken.
    pub bodies: Arc<Bodies>,
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
    pub(super) evicted: AtomicU64,
}

// === impl ServerSettings ===

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_waiting_connections: 1024,
            least_idle: Duration::from_secs(1),
            passed_on: None,
            header_read_timeout: Duration::from_secs(5),
            exchange_timeout: None,
            idle_timeout: Duration::from_secs(300),
            body_read_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            least_pace: 16 * 1024,
            max_body_size: 64 * 1024 * 1024,
            bodies: Bodies::unbounded(),
            shutdown_timeout: Duration::from_secs(5),
            limits: wire::Limits::default(),
        }
    }
}

// === impl Connections ===

impl Connections {
    /// All that are held, idle or not.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Of those, how many wait with a request for a place.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Answered 503 so far, or closed without a word, because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Closed so far while idle, to make room for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}
