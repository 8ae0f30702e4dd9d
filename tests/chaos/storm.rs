//! A proxy before a DynamoDB API that fails as networks and services do: slow, refusing, losing answers, late.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use machinegun::clock::Clock;
use tokio::net::{TcpListener, TcpStream};

use crate::crash::dice::Dice;

/// One instance's way to the table.
pub struct Storm {
    pub endpoint: String,
    weather: Arc<Weather>,
}

struct Weather {
    service: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    clock: Clock,
    dice: Mutex<Dice>,
    rough: AtomicBool,
    cut: AtomicBool,
    spoilt: AtomicU64,
}

/// What becomes of a request. Times are milliseconds.
enum Fate {
    Pass,
    Delay(u64),
    /// Worked off, and nobody is told.
    LoseAnswer,
    /// The connection breaks at once, and the request is worked off later.
    Late(u64),
    /// It goes nowhere, and the connection breaks.
    Cut,
    Fail,
    Throttle,
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("broken")]
struct Broken;

// === impl Storm ===

impl Storm {
    pub async fn before(service: &str, dice: Dice) -> Self {
        let service = service.trim_start_matches("http://").parse().expect("a table at a plain address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let weather = Arc::new(Weather {
            service,
            client: Client::builder(TokioExecutor::new()).build_http(),
            clock: Clock::system(),
            dice: Mutex::new(dice),
            rough: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            spoilt: AtomicU64::new(0),
        });
        let shared = weather.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { endpoint, weather }
    }

    /// One request in five or so is spoilt.
    pub fn rough(&self, rough: bool) {
        self.weather.rough.store(rough, Ordering::SeqCst);
    }

    /// Nothing comes through at all.
    pub fn cut(&self, cut: bool) {
        self.weather.cut.store(cut, Ordering::SeqCst);
    }

    /// How many requests were not simply passed on.
    pub fn spoilt(&self) -> u64 {
        self.weather.spoilt.load(Ordering::SeqCst)
    }
}

async fn serve(stream: TcpStream, weather: Arc<Weather>) {
    let answer = service_fn(|request| {
        let weather = weather.clone();
        async move { weather.answer(request).await }
    });
    // A connection that breaks is what this is for.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

// === impl Weather ===

impl Weather {
    fn fate(&self) -> Fate {
        if self.cut.load(Ordering::SeqCst) {
            return Fate::Cut;
        }
        if !self.rough.load(Ordering::SeqCst) {
            return Fate::Pass;
        }
        let mut dice = self.dice.lock().expect("nobody panics with it");
        match dice.below(100) {
            0..5 => Fate::Delay(20 + dice.below(400)),
            5..9 => Fate::LoseAnswer,
            9..13 => Fate::Late(dice.below(2_500)),
            13..16 => Fate::Cut,
            16..19 => Fate::Fail,
            19..22 => Fate::Throttle,
            _ => Fate::Pass,
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Broken> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
        let mut request = Request::from_parts(parts, Full::new(body));
        let target = format!("http://{}{}", self.service, request.uri().path());
        *request.uri_mut() = target.parse().expect("a path stays a path");
        let fate = self.fate();
        if !matches!(fate, Fate::Pass) {
            self.spoilt.fetch_add(1, Ordering::SeqCst);
        }
        match fate {
            Fate::Pass => self.pass(request).await,
            Fate::Delay(milliseconds) => {
                self.wait(milliseconds).await;
                self.pass(request).await
            }
            Fate::LoseAnswer => {
                let _ = self.pass(request).await;
                Err(Broken)
            }
            Fate::Late(milliseconds) => {
                tokio::spawn(async move {
                    self.wait(milliseconds).await;
                    let _ = self.pass(request).await;
                });
                Err(Broken)
            }
            Fate::Cut => Err(Broken),
            Fate::Fail => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")),
            Fate::Throttle => Ok(refusal(StatusCode::BAD_REQUEST, "ThrottlingException")),
        }
    }

    async fn wait(&self, milliseconds: u64) {
        self.clock.sleep_until(self.clock.now() + milliseconds as i64).await;
    }

    async fn pass(&self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Broken> {
        let response = self.client.request(request).await.map_err(|_| Broken)?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)))
    }
}

fn refusal(status: StatusCode, kind: &str) -> Response<Full<Bytes>> {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{kind}","message":"not now"}}"#);
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    response.body(Full::new(body.into())).expect("a response")
}
