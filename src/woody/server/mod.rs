//! The server: one listener, woody services and plain routes by path.
//!
//! Policy. Handlers are detached: neither a client that hangs up nor a stop of the server ends one. Everything a client
//! can hold is bounded: connections (served, waiting, then 503), headers, body size, silence. What is not even HTTP is
//! answered without woody headers and the connection closes; every other refusal carries class and reason.

mod accept;
mod exchange;
mod head;
mod refusal;
mod routes;
mod settings;
mod stream;

use std::future::Future;

use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use http::request::Parts;

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

/// A result: a whole Thrift reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub body: Bytes,
    /// The name of the declared exception that the body carries.
    pub business: Option<&'static str>,
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

    /// Runs to its end whatever the client does. `args` stands behind the message's header; `seqid` belongs into the
    /// reply as it is. What can't be read converts into an [`Error`] of its own.
    async fn handle(&self, context: Context, name: Bytes, args: Reader, seqid: i32) -> Result<Reply, Error>;
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
