//! Listening, the places that connections take, and the stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::exchange::{self, Shared};
use super::routes::Routes;
use super::settings::{Connections, ServerSettings};
use super::stream::{Stream, Watch};
use super::{Plain, Service};
use crate::clock::Clock;

/// What the kernel holds for us while we are not accepting.
const BACKLOG: i32 = 1024;
/// How long a failing accept (no file descriptors left) lets the connections that hold them go on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long, and for how many at once, a refused connection is kept so that its client can read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);
const REFUSALS_AT_ONCE: usize = 64;

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nserver: Machinegun\r\n\
    woody.error-class: Resource Unavailable\r\nwoody.error-reason: too many connections\r\n\
    content-length: 0\r\nconnection: close\r\n\r\n";

/// A bound server, which does not accept before [`Server::serve`].
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: Routes,
    settings: ServerSettings,
    clock: Clock,
    connections: Arc<Connections>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Exchanges end, idle connections close.
    Stopping,
    /// Everything closes.
    Stopped,
}

/// The accept loop's view of its connections.
struct Gate {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    tasks: TaskTracker,
    stage: watch::Sender<Stage>,
}

/// Counts for as long as it lives.
struct Counted<'a>(&'a AtomicU64);

// === impl Server ===

impl Server {
    /// Listens on `address`; `::` takes IPv4 too, and stands for `0.0.0.0` where there is no IPv6. Port 0 picks one.
    /// Needs a tokio runtime.
    pub fn bind(address: SocketAddr, settings: ServerSettings, clock: Clock) -> io::Result<Self> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}"));
        let listener = listen(address)
            .or_else(|error| match address {
                // EAFNOSUPPORT has no kind of its own.
                SocketAddr::V6(it) if it.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
                    listen((Ipv4Addr::UNSPECIFIED, it.port()).into()).map_err(|_| error)
                }
                _ => Err(error),
            })
            .map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr()?;
        let connections = Arc::default();
        Ok(Self { listener, address, routes: Routes::default(), settings, clock, connections })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The numbers behind the metrics.
    pub fn connections(&self) -> Arc<Connections> {
        self.connections.clone()
    }

    /// Puts a woody service at `path`.
    pub fn route(mut self, path: impl Into<String>, service: Arc<dyn Service>) -> Self {
        self.routes.service(path.into(), service);
        self
    }

    /// Puts a plain HTTP route at `path`; `/below/*` stands for every path below. They go before the services.
    pub fn plain(mut self, path: impl Into<String>, plain: Arc<dyn Plain>) -> Self {
        self.routes.plain(path.into(), plain);
        self
    }

    /// Serves until `shutdown` resolves. New connections are still accepted while `drain` runs (readiness fails
    /// meanwhile, and work is brought to an end); then running exchanges and handlers end, and all of it takes at most
    /// the shutdown timeout. Handlers that outlive it are left alone.
    pub async fn serve(self, shutdown: impl Future<Output = ()>, drain: impl Future<Output = ()>) {
        let time = self.settings.shutdown_timeout;
        let gate = Gate {
            places: Arc::new(Semaphore::new(self.settings.max_connections.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE)),
            tasks: TaskTracker::new(),
            stage: watch::Sender::new(Stage::Running),
            connections: self.connections,
            shared: Arc::new(Shared {
                routes: self.routes,
                settings: self.settings,
                clock: self.clock,
                handlers: TaskTracker::new(),
            }),
        };
        let stop = async {
            shutdown.await;
            let end = Instant::now() + time;
            if !time.is_zero() {
                let _ = timeout_at(end, drain).await;
            }
            end
        };
        let end = tokio::select! {
            end = stop => end,
            never = gate.accept(&self.listener) => match never {},
        };
        drop(self.listener);
        gate.stop(end).await;
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the old connections' last packets.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

// === impl Gate ===

impl Gate {
    async fn accept(&self, listener: &TcpListener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => self.admit(socket),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(error.reason = %error, "can't accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, socket: TcpStream) {
        // Fair: a place that becomes free goes to those who wait, before anyone can try for it here.
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            let counted = self.connections.clone();
            let connection = connection(socket, self.shared.clone(), self.stage.subscribe());
            self.tasks.spawn(async move {
                let _open = Counted::new(&counted.open);
                let _place = place;
                connection.await;
            });
            return;
        }
        if self.connections.waiting() < self.shared.settings.max_waiting_connections as u64 {
            self.tasks.spawn(wait(
                socket,
                Waiting::new(self.connections.clone()),
                self.places.clone(),
                self.shared.clone(),
                self.stage.subscribe(),
            ));
            return;
        }
        self.connections.refused.fetch_add(1, Ordering::Relaxed);
        // Past even that number the client sees a reset.
        if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
            self.tasks.spawn(refuse(socket, permit));
        }
    }

    async fn stop(self, end: Instant) {
        self.tasks.close();
        self.shared.handlers.close();
        if end > Instant::now() {
            self.stage.send_replace(Stage::Stopping);
            let all = async {
                self.tasks.wait().await;
                self.shared.handlers.wait().await;
            };
            if timeout_at(end, all).await.is_err() {
                let left = self.shared.handlers.len();
                tracing::warn!(handlers = left, "not all exchanges ended within the shutdown timeout");
            }
        }
        self.stage.send_replace(Stage::Stopped);
        self.tasks.wait().await;
    }
}

/// Errors of accept that concern the connection that was to be accepted, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Holds its place in the queue from the moment it is accepted, so that no burst can overrun the bound.
struct Waiting(Arc<Connections>);

impl Waiting {
    fn new(connections: Arc<Connections>) -> Self {
        connections.waiting.fetch_add(1, Ordering::Relaxed);
        Self(connections)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn wait(
    socket: TcpStream,
    waiting: Waiting,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
    mut stage: watch::Receiver<Stage>,
) {
    let place = tokio::select! {
        place = places.acquire_owned() => place,
        _ = stage.wait_for(|stage| *stage != Stage::Running) => return,
    };
    // The semaphore is never closed.
    let Ok(_place) = place else { return };
    let connections = waiting.0.clone();
    drop(waiting);
    let _open = Counted::new(&connections.open);
    connection(socket, shared, stage).await;
}

async fn refuse(mut socket: TcpStream, _permit: OwnedSemaphorePermit) {
    let _ = timeout(REFUSAL_LINGER, async {
        socket.write_all(TOO_MANY).await?;
        socket.shutdown().await?;
        let mut scratch = [0; 1024];
        while socket.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

async fn connection(socket: TcpStream, shared: Arc<Shared>, mut stage: watch::Receiver<Stage>) {
    let _ = socket.set_nodelay(true);
    let watch = Watch::new();
    let stream = TokioIo::new(Stream::new(socket, watch.clone(), &shared.settings));
    let service = service_fn(move |request| {
        let (shared, watch) = (shared.clone(), watch.clone());
        async move { Ok::<_, Infallible>(exchange::run(&shared, &watch, request).await) }
    });
    // Timeouts are the stream's: it tells a slow head from an idle connection.
    let connection = http1::Builder::new().header_read_timeout(None).serve_connection(stream, service);
    let mut connection = pin!(connection);
    loop {
        let at = *stage.borrow_and_update();
        match at {
            Stage::Running => {}
            Stage::Stopping => connection.as_mut().graceful_shutdown(),
            Stage::Stopped => return,
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error.reason = &error as &dyn std::error::Error, "connection ended");
                }
                return;
            }
            changed = stage.changed() => {
                // The gate outlives its tasks; without one there is nobody to wait for.
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

// === impl Counted ===

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
