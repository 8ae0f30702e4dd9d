//! The pool: at most so many connections at once, the most recently used one first.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::secure::Secure;
use super::socket::{Probe, Socket};
use crate::clock::{Clock, random_unit};
use crate::woody::error::Error;

/// Where a URL points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// As the `host` header carries it.
    pub(super) host: HeaderValue,
    pub(super) name: String,
    pub(super) port: u16,
    /// By TLS.
    pub(super) secure: bool,
}

#[derive(Debug)]
pub(super) struct Pool {
    /// One permit per call. INVARIANT: idle connections and permits given out are together at most the pool's size, once
    /// whoever holds a permit has evicted what is too much.
    places: Arc<Semaphore>,
    keep_alive_ms: i64,
    inet6: bool,
    secure: Option<Secure>,
    clock: Clock,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The longest idle first.
    connections: VecDeque<Resting>,
    reaping: bool,
}

#[derive(Debug)]
struct Resting {
    peer: Peer,
    sender: SendRequest<Full<Bytes>>,
    probe: Probe,
    until: i64,
}

/// A connection that one call has for itself. Dropped without a check-in, it closes.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// It has served before, so the peer may have closed it since.
    pub(super) reused: bool,
    peer: Peer,
    probe: Probe,
    _place: OwnedSemaphorePermit,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(
        size: usize,
        keep_alive: Duration,
        inet6: bool,
        secure: Option<Secure>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(size.clamp(1, Semaphore::MAX_PERMITS))),
            keep_alive_ms: i64::try_from(keep_alive.as_millis()).unwrap_or(i64::MAX),
            inet6,
            secure,
            clock,
            idle: Mutex::default(),
        })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing that holds the lock can leave the list half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to `peer`, ready to send, by `until`.
    pub(super) async fn checkout(&self, peer: &Peer, until: i64) -> Result<Leased, Error> {
        let Ok(Ok(place)) = self.clock.timeout_at(until, self.places.clone().acquire_owned()).await else {
            return Err(Error::pool_full());
        };
        while let Some((mut sender, probe)) = self.take(peer) {
            if !probe.is_quiet() {
                continue;
            }
            // Its last exchange is over; it needs a moment at most to say that it can take another, or has closed.
            if let Ok(Ok(())) = self.clock.timeout_at(until, sender.ready()).await {
                return Ok(Leased { sender, reused: true, peer: peer.clone(), probe, _place: place });
            }
        }
        // Apart: every call's future would carry what a handshake needs, and few make one.
        match self.clock.timeout_at(until, Box::pin(self.connect(peer))).await {
            Ok(Ok((sender, probe))) => Ok(Leased { sender, reused: false, peer: peer.clone(), probe, _place: place }),
            Ok(Err(error)) => Err(Error::unavailable(error)),
            Err(_) => Err(Error::unavailable("connect_timeout")),
        }
    }

    fn take(&self, peer: &Peer) -> Option<(SendRequest<Full<Bytes>>, Probe)> {
        let now = self.clock.now();
        let mut idle = self.idle();
        idle.connections.retain(|resting| !resting.sender.is_closed() && now < resting.until);
        let found = idle.connections.iter().rposition(|resting| resting.peer == *peer);
        let found = found.and_then(|at| idle.connections.remove(at));
        if found.is_none() {
            // A new one will be made: one that idles for another peer makes room.
            while idle.connections.len() > self.places.available_permits() {
                idle.connections.pop_front();
            }
        }
        found.map(|resting| (resting.sender, resting.probe))
    }

    /// Gives back a connection whose exchange is over.
    pub(super) fn checkin(self: &Arc<Self>, leased: Leased) {
        let Leased { sender, peer, probe, .. } = leased;
        if sender.is_closed() || self.keep_alive_ms == 0 {
            return;
        }
        let until = self.clock.now().saturating_add(self.keep_alive_ms);
        let mut idle = self.idle();
        idle.connections.push_back(Resting { peer, sender, probe, until });
        if !std::mem::replace(&mut idle.reaping, true) {
            let clock = self.clock.clone();
            let pool = Arc::downgrade(self);
            tokio::spawn(async move {
                let mut next = until;
                loop {
                    clock.sleep_until(next).await;
                    let Some(pool) = pool.upgrade() else { return };
                    let Some(until) = pool.reap() else { return };
                    next = until;
                }
            });
        }
    }

    /// Closes what has idled for too long. Returns when the next one will have.
    fn reap(&self) -> Option<i64> {
        let now = self.clock.now();
        let mut idle = self.idle();
        idle.connections.retain(|resting| !resting.sender.is_closed() && now < resting.until);
        let next = idle.connections.front().map(|resting| resting.until);
        idle.reaping = next.is_some();
        next
    }

    /// A new connection to any one of the host's addresses. Its error is what peers know it by.
    async fn connect(&self, peer: &Peer) -> Result<(SendRequest<Full<Bytes>>, Probe), String> {
        let secure = match &self.secure {
            None if peer.secure => return Err("https is not spoken here".to_owned()),
            secure => secure.as_ref().filter(|_| peer.secure),
        };
        let resolved = |error: &io::Error| format!("{{resolve_failed,{}}}", name(error, "nxdomain"));
        let found = lookup_host((peer.name.as_str(), peer.port)).await.map_err(|error| resolved(&error))?;
        let (mut preferred, others): (Vec<SocketAddr>, Vec<_>) = found.partition(|it| it.is_ipv6() == self.inet6);
        if preferred.is_empty() {
            preferred = others;
        }
        let picked = (random_unit() * preferred.len() as f64) as usize;
        let address = preferred.get(picked).ok_or("{resolve_failed,nxdomain}")?;
        let stream = TcpStream::connect(address).await.map_err(|error| name(&error, "connect failed"))?;
        let _ = stream.set_nodelay(true);
        let (socket, probe) = Socket::new(stream);
        let sender = match secure {
            None => open(socket).await?,
            Some(secure) => open(secure.handshake(&peer.name, socket).await?).await?,
        };
        Ok((sender, probe))
    }
}

async fn open(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, String> {
    // Servers of the original write a reason as it is, line breaks and all; its clients took that, and what else is not
    // quite HTTP. The status alone says what the reply means.
    let handshake = http1::Builder::new()
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error.reason = &error as &dyn std::error::Error, "connection ended");
        }
    });
    Ok(sender)
}

/// An I/O error by the name that peers know, which goes into details.
pub(super) fn name(error: &io::Error, otherwise: &str) -> String {
    use io::ErrorKind;
    let name = match error.kind() {
        ErrorKind::ConnectionRefused => "econnrefused",
        ErrorKind::ConnectionReset => "econnreset",
        ErrorKind::ConnectionAborted => "econnaborted",
        ErrorKind::HostUnreachable => "ehostunreach",
        ErrorKind::NetworkUnreachable => "enetunreach",
        ErrorKind::NetworkDown => "enetdown",
        ErrorKind::PermissionDenied => "eacces",
        ErrorKind::TimedOut => "etimedout",
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "closed",
        _ => return format!("{otherwise}: {error}"),
    };
    name.to_owned()
}
