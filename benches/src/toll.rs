//! A road to a DynamoDB API on which every request is metered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::Failure;
use crate::units::{Charge, Meter};

/// Goes on for as long as the runtime lives.
pub struct Toll {
    /// Where it listens.
    pub endpoint: String,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    meter: Meter,
    charges: Vec<Charge>,
    error: Option<String>,
}

type Forward = Client<HttpConnector, Full<Bytes>>;

// === impl Toll ===

impl Toll {
    /// Before the service at `http://host:port`.
    pub async fn before(service: &str) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let service: SocketAddr = service.trim_start_matches("http://").trim_end_matches('/').parse()?;
        let toll = Self { endpoint: format!("http://{}", listener.local_addr()?), book: Arc::default() };
        let (book, forward) = (toll.book.clone(), Client::builder(TokioExecutor::new()).build_http());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A socket that refuses the option is only slower.
                let _ = stream.set_nodelay(true);
                let (book, forward) = (book.clone(), forward.clone());
                tokio::spawn(async move {
                    let pass = service_fn(|request| pass(request, service, &forward, &book));
                    // Ends with the peer's hang-up.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await;
                });
            }
        });
        Ok(toll)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many requests were answered so far.
    pub fn passed(&self) -> usize {
        self.book().charges.len()
    }

    /// How many of the charges since then are such.
    pub fn count(&self, passed: usize, is: impl Fn(&Charge) -> bool) -> usize {
        self.book().charges[passed..].iter().filter(|charge| is(charge)).count()
    }

    /// The charges since the first `passed` ones.
    pub fn since(&self, passed: usize) -> Result<Vec<Charge>, Failure> {
        let book = self.book();
        match &book.error {
            Some(error) => Err(error.clone().into()),
            None => Ok(book.charges[passed..].to_vec()),
        }
    }
}

async fn pass(
    request: Request<Incoming>,
    service: SocketAddr,
    forward: &Forward,
    book: &Mutex<Book>,
) -> Result<Response<Full<Bytes>>, Failure> {
    let (mut head, body) = request.into_parts();
    let asked = body.collect().await?.to_bytes();
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default().to_owned();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("http://{service}{path}").parse::<Uri>()?;
    let (head, body) = forward.request(Request::from_parts(head, Full::new(asked.clone()))).await?.into_parts();
    let answered = body.collect().await?.to_bytes();
    let (question, answer) = (json(&asked), json(&answered));
    // IMPORTANT: noted before the answer is passed on, so that who has it finds its charge.
    {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        match book.meter.charge(&operation, head.status.as_u16(), &question, &answer) {
            Ok(charge) => book.charges.push(charge),
            Err(error) => drop(book.error.get_or_insert(error.to_string())),
        }
    }
    Ok(Response::from_parts(head, Full::new(answered)))
}

/// Null for what is none: the meter says that it does not know it.
fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}
