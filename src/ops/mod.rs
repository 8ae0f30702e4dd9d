//! What operators and probes ask over HTTP: health and metrics. Not woody: no headers are asked for.
//! How much memory is used, and what follows from it. And, on the command line, of a ledger and of a table.

pub mod health;
pub mod ledger;
pub mod memory;
pub mod schema;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use crate::cluster::Cluster;
use crate::telemetry::Metrics;
use crate::woody::Server;
pub use health::Health;

/// Whether the service takes work. It stops being ready before it stops.
///
/// Where several instances share a storage it is ready once it is one of them, and stays so when its leases run out: what
/// keeps it from the storage mostly keeps the others from it too, and a service without any ready instance would answer
/// nothing at all. Reads go on, other instances' machines are within reach, and every step is refused at once.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

// === impl Readiness ===

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Puts `/health`, `/healthz/*` and `/metrics` on the server.
pub fn routes(
    server: Server,
    health: Health,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    cluster: Option<Arc<Cluster>>,
) -> Server {
    let health = Arc::new(health);
    let health = move |_: Parts| {
        let health = health.clone();
        async move {
            // A file system may take its time to answer.
            match tokio::task::spawn_blocking(move || health.look()).await {
                Ok((status, checks)) => json(status, &checks),
                Err(error) => json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "error": error.to_string() })),
            }
        }
    };
    let startup = |_: Parts| async { json(StatusCode::OK, &serde_json::json!({ "startup": [] })) };
    let liveness = |_: Parts| async { json(StatusCode::OK, &serde_json::json!({ "liveness": [] })) };
    let ready = move |_: Parts| {
        let why_not = match &cluster {
            _ if !readiness.get() => Some("stopping"),
            Some(cluster) if !cluster.has_joined() => Some("joining"),
            _ => None,
        };
        async move {
            match why_not {
                None => json(StatusCode::OK, &serde_json::json!({ "readiness": [] })),
                Some(why) => json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "readiness": why })),
            }
        }
    };
    let default_registry = metrics.clone();
    let scrape = move |request: Parts| {
        let metrics = default_registry.clone();
        async move { scraped(&request, &metrics) }
    };
    let named = move |request: Parts| {
        let metrics = metrics.clone();
        async move {
            match request.uri.path() {
                "/metrics/default" => scraped(&request, &metrics),
                _ => text(StatusCode::NOT_FOUND, "Unknown Registry".into()),
            }
        }
    };
    server
        .plain("/health", Arc::new(health))
        .plain("/healthz/startup", Arc::new(startup))
        .plain("/healthz/liveness", Arc::new(liveness))
        .plain("/healthz/readiness", Arc::new(ready))
        .plain("/metrics", Arc::new(scrape))
        .plain("/metrics/*", Arc::new(named))
}

fn scraped(request: &Parts, metrics: &Metrics) -> Response<Bytes> {
    match request.method {
        Method::GET | Method::HEAD => text(StatusCode::OK, metrics.render().into()),
        _ => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn text(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
