//! The server: one listener, woody services and plain routes by path.
//!
//! Policy. Handlers are detached: neither a client that hangs up nor a stop of the server ends one. Everything a client
//! can hold is bounded: connections, headers, body size, bytes of all bodies, silence, and how slowly it gives and takes.
//! Connections are many, since idle ones cost little; what is scarce is a place, which a request to a service has from when
//! its body is here until its handler has ended. Plain routes (probes, metrics) need none. When there are too many
//! connections, the one that has been idle for longest makes room; where none is idle, further ones still get at plain
//! routes, and 503 for all else. What is not even HTTP is answered without woody headers and the connection closes; every
//! other refusal carries class and reason.

mod accept;
mod crowd;
mod exchange;
mod head;
mod head_scan;
mod refusal;
mod routes;
mod settings;
mod stream;
mod watch;

use std::future::Future;

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, Uri};

pub use accept::Server;
pub use settings::{Connections, ServerSettings};

use super::context::Context;
use super::error::Error;
use crate::wire::Reader;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// Answered with what the handler returns.
    Call,
    /// Answered at once, with nothing; the handler runs after.
    Oneway,
}

/// One call of a method, with headers and envelope checked.
pub struct Request {
    pub context: Context,
    pub name: Bytes,
    /// Stands behind the message's header.
    pub args: Reader,
    /// Belongs into the reply as it is.
    pub seqid: i32,
    pub original: Original,
}

/// A request as it came, for those who pass it on: its parts are shared or moved here, never copied. Holding it holds
/// the whole body in memory.
#[derive(Clone, Debug)]
pub struct Original {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What goes back to the caller, other than an [`Error`].
#[derive(Clone, Debug)]
pub enum Reply {
    /// A whole Thrift reply.
    Result {
        body: Bytes,
        /// The name of the declared exception that the body carries.
        business: Option<&'static str>,
    },
    /// Another server's answer, as it is: its status, its headers without those of the connection, its body.
    Relayed(Response<Bytes>),
}

// === impl Reply ===

impl Reply {
    /// How an error is answered, for those who have something to add to that.
    pub fn refused(error: Error) -> Response<Bytes> {
        refusal::Refusal::Failed(error).response().map(|_| Bytes::new())
    }
}

/// A Thrift service behind a path.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// As the interface calls it; for logs and traces.
    fn name(&self) -> &'static str {
        "Service"
    }

    /// None: the service has no such method.
    fn method(&self, name: &[u8]) -> Option<MethodKind>;

    /// Runs to its end whatever the client does. What can't be read converts into an [`Error`] of its own.
    async fn handle(&self, request: Request) -> Result<Reply, Error>;
}

/// An HTTP route that is not woody: any method, no header checks, the request's body is ignored. Any
/// `async fn(Parts) -> Response<Bytes>` is one.
#[async_trait]
pub trait Plain: Send + Sync + 'static {
    async fn answer(&self, request: Parts) -> Response<Bytes>;
}

#[async_trait]
impl<F, Fut> Plain for F
where
    F: Fn(Parts) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Bytes>> + Send + 'static,
{
    async fn answer(&self, request: Parts) -> Response<Bytes> {
        self(request).await
    }
}
