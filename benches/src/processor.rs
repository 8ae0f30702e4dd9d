//! The processor that the service asks: one event for each Call, after thinking for as long as it is told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use machinegun::clock::Clock;
use machinegun::wire::{
    self, CallResult, ComplexAction, Content, Header, Limits, MachineStateChange, Method, ProcessCall, ProcessSignal,
    Reader, SignalResult, Value,
};
use tokio::net::TcpListener;

use crate::Failure;

/// Bytes of the one event.
const EVENT: usize = 300;
const AUX_STATE: usize = 100;
/// Bytes of the answer to the caller.
const RESPONSE: usize = 50;

/// Listens on a port of its own, and answers for as long as the runtime lives.
/// Each of its answers takes `thinking`, however many it is asked for at once.
pub async fn start(thinking: Duration) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A socket that refuses the option is only slower.
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                // Ends with the peer's hang-up.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(|request| answer(request, thinking)))
                    .await;
            });
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>, thinking: Duration) -> Result<Response<Full<Bytes>>, Infallible> {
    if !thinking.is_zero() {
        let clock = Clock::system();
        clock.sleep_until_monotonic(clock.monotonic() + thinking.as_millis() as i64).await;
    }
    let body = request.into_body().collect().await.ok().and_then(|body| reply(body.to_bytes()));
    let mut response = match body {
        Some(body) => Response::new(Full::new(body)),
        None => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-thrift"));
    Ok(response)
}

/// None for what the service never asks here.
fn reply(body: Bytes) -> Option<Bytes> {
    let mut reader = Reader::new(body, Limits::default());
    let header = Header::read(&mut reader).ok()?;
    let content = |size: usize| Content { format_version: Some(1), data: Value::bin(&vec![0x5a; size]) };
    let change = MachineStateChange {
        aux_state_legacy: None,
        events_legacy: None,
        aux_state: Some(content(AUX_STATE)),
        events: Some(vec![content(EVENT)]),
    };
    let action = ComplexAction { set_timer: None, timer: None, tag: None, remove: None };
    if header.name == ProcessCall::NAME {
        wire::read_args::<ProcessCall>(&mut reader).ok()?;
        let response = Value::bin(&[0x5a; RESPONSE]);
        wire::write_reply::<ProcessCall>(header.seqid, &Ok(CallResult { response, change, action })).ok()
    } else {
        wire::read_args::<ProcessSignal>(&mut reader).ok()?;
        wire::write_reply::<ProcessSignal>(header.seqid, &Ok(SignalResult { change, action })).ok()
    }
}
