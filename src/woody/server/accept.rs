//! Listening, the places that connections take, and the stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::crowd::{Crowd, Member};
use super::exchange::{self, Counted, SPARE_FOR_PEERS, Shared};
use super::routes::Routes;
use super::settings::{Connections, ServerSettings};
use super::stream::Stream;
use super::watch::Watch;
use super::{Plain, Service};
use crate::clock::Clock;
use crate::woody::bodies::Bodies;

/// What the kernel holds for us while we are not accepting.
const BACKLOG: i32 = 1024;
/// How long a failing accept (no file descriptors left) lets the connections that hold them go on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many connections beyond all others are heard at once, and how long each may take to ask: for a probe, or as another
/// server of ours. All else is told that there are too many.
const SPARE: usize = 2 * SPARE_FOR_PEERS;
const SPARE_PATIENCE: Duration = Duration::from_secs(1);
/// Who is silent for so long there makes room for the next: a client that has something to ask sends it at once.
const SPARE_SILENCE: Duration = Duration::from_millis(20);

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
    crowd: Arc<Crowd>,
    /// Those beyond all places.
    spare: Arc<Crowd>,
    tasks: TaskTracker,
    stage: watch::Sender<Stage>,
}

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
                    listen((Ipv4Addr::UNSPECIFIED, it.port()).into()).map_err(|second| match second.kind() {
                        io::ErrorKind::AddrInUse => second,
                        _ => error,
                    })
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

    /// Where its requests' bodies count.
    pub fn bodies(&self) -> Arc<Bodies> {
        self.settings.bodies.clone()
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
            crowd: Crowd::new(
                self.settings.max_connections.saturating_add(self.settings.max_waiting_connections),
                self.settings.least_idle,
            ),
            spare: Crowd::new(SPARE, SPARE_SILENCE),
            tasks: TaskTracker::new(),
            stage: watch::Sender::new(Stage::Running),
            connections: self.connections.clone(),
            shared: Arc::new(Shared {
                routes: self.routes,
                connections: self.connections,
                places: Arc::new(Semaphore::new(self.settings.max_connections.min(Semaphore::MAX_PERMITS))),
                settings: self.settings,
                clock: self.clock,
                peers: Semaphore::new(SPARE_FOR_PEERS),
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
                Ok((socket, _)) => self.admit(socket).await,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(error.reason = %error, "can't accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn admit(&self, socket: TcpStream) {
        let watch = Watch::new(false);
        if let Ok(entered) = self.crowd.enter(&watch, Instant::now()) {
            return self.hear(socket, watch, entered);
        }
        let watch = Watch::new(true);
        if let Some(entered) = self.spare.enter_soon(&watch).await {
            return self.hear(socket, watch, entered);
        }
        // While even those are all at work the client sees a reset.
        self.connections.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn hear(&self, socket: TcpStream, watch: Arc<Watch>, (member, made_room): (Member, bool)) {
        self.connections.evicted.fetch_add(u64::from(made_room), Ordering::Relaxed);
        let connections = self.connections.clone();
        let counts = !watch.is_spare();
        let connection = connection(socket, watch, self.shared.clone(), self.stage.subscribe());
        self.tasks.spawn(async move {
            let _open = counts.then(|| Counted::new(&connections.open));
            let _member = member;
            connection.await;
        });
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

async fn connection(socket: TcpStream, watch: Arc<Watch>, shared: Arc<Shared>, mut stage: watch::Receiver<Stage>) {
    let _ = socket.set_nodelay(true);
    let mut stream = Stream::new(socket, watch.clone(), &shared.settings);
    if watch.is_spare() {
        stream.hurry(SPARE_PATIENCE);
    }
    let stream = TokioIo::new(stream);
    let told = watch.clone();
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
            () = told.told_to_leave() => connection.as_mut().graceful_shutdown(),
            changed = stage.changed() => {
                // The gate outlives its tasks; without one there is nobody to wait for.
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
