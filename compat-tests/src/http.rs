//! The little HTTP that players on both sides need: a server on the loopback, and a client that gives up in time.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use machinegun::clock::Clock;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::recording::{Answer, Headers, Request, Response};

/// A server that asks one function. Connections end with it.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    acceptor: JoinHandle<()>,
}

#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    clock: Clock,
}

/// The handler wants the connection closed without a word.
#[derive(Debug)]
struct HangUp;

impl std::error::Error for HangUp {}

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up")
    }
}

// === impl Server ===

impl Server {
    /// Serves on the loopback; port 0 takes any free one. A handler runs to its end even if its client is gone.
    pub async fn start<H, F>(port: u16, handler: H) -> std::io::Result<Self>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let handler = Arc::new(handler);
        let acceptor = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                // Small messages must not wait for one another's acknowledgements.
                let _ = stream.set_nodelay(true);
                let handler = Arc::clone(&handler);
                let service = service_fn(move |request| serve(Arc::clone(&handler), request));
                connections
                    .spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, acceptor })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it. The port is free when this returns.
    pub async fn stop(mut self) {
        self.acceptor.abort();
        let _ = (&mut self.acceptor).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn serve<H, F>(handler: Arc<H>, request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, HangUp>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| HangUp)?.to_bytes();
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: to_headers(&head.headers),
        body,
    };
    // A task of its own: this one is dropped when the client hangs up.
    match tokio::spawn(handler(request)).await {
        Ok(Answer::Reply(response)) => {
            let mut reply = http::Response::new(Full::new(response.body));
            *reply.status_mut() = http::StatusCode::from_u16(response.status).map_err(|_| HangUp)?;
            *reply.headers_mut() = from_headers(&response.headers).map_err(|_| HangUp)?;
            Ok(reply)
        }
        Ok(Answer::Broken(_)) | Err(_) => Err(HangUp),
    }
}

// === impl Client ===

impl Client {
    pub fn new(clock: Clock) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { pool: Pool::builder(TokioExecutor::new()).build(connector), clock }
    }

    /// Sends `request` to `origin`. A peer that hangs up, or says nothing until `deadline` (unix milliseconds), is broken.
    pub async fn send(&self, origin: &str, request: Request, deadline: i64) -> Answer {
        match self.clock.timeout_at(deadline, self.exchange(origin, request)).await {
            Ok(Ok(response)) => Answer::Reply(response),
            Ok(Err(error)) => Answer::Broken(error),
            Err(_) => Answer::Broken("no answer in time".to_owned()),
        }
    }

    async fn exchange(&self, origin: &str, request: Request) -> Result<Response, String> {
        let uri = format!("{origin}{}", request.path);
        let mut message = http::Request::builder()
            .method(request.method.as_str())
            .uri(uri)
            .body(Full::new(request.body))
            .map_err(|error| error.to_string())?;
        *message.headers_mut() = from_headers(&request.headers)?;
        let response = self.pool.request(message).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Response { status: head.status.as_u16(), headers: to_headers(&head.headers), body })
    }
}

// === headers ===

fn to_headers(map: &HeaderMap) -> Headers {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers = Headers::new();
    for (name, value) in map {
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|values| *values = format!("{values}, {}", text(value)))
            .or_insert_with(|| text(value));
    }
    headers
}

fn from_headers(headers: &Headers) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("header {name}: {error}"))?;
        // A recorded reason may hold what HTTP forbids; nobody compares that text.
        let value: Vec<u8> = value.bytes().map(|byte| if byte < b' ' || byte == 0x7f { b' ' } else { byte }).collect();
        map.insert(name, HeaderValue::from_bytes(&value).map_err(|error| error.to_string())?);
    }
    Ok(map)
}

/// Never happens; hyper wants an error type of its services.
impl From<Infallible> for HangUp {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
