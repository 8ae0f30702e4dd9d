//! A client: one connection, one request at a time.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use machinegun::clock::Clock;
use machinegun::wire::{
    self, Call, DescribedParams, Direction, Header, HistoryRange, Limits, MachineDescriptor, Method, Reader, Reference,
    Start, StartParams, Value,
};
use machinegun::woody::format_deadline;
use tokio::net::TcpStream;

use crate::Failure;

/// Milliseconds that each request has.
const PATIENCE_MS: i64 = 30_000;
/// Bytes of a Call's arguments.
const ARGUMENT: usize = 100;

pub struct Caller {
    connection: SendRequest<Full<Bytes>>,
    headers: HeaderMap,
    clock: Clock,
}

/// What a request got that was not done.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: String,
}

/// A whole request's body. Made before the measurement: the service is measured, not its client.
#[derive(Clone)]
pub struct Message(Bytes);

// === impl Message ===

impl Message {
    pub fn start(id: &str) -> Self {
        let params = StartParams { ns: "bench".into(), id: id.to_owned().into(), a: Value::bin(&[0x5a; ARGUMENT]) };
        Self(wire::write_call::<Start>(&params, 0))
    }

    /// Asks for the last event only, as clients with long histories do.
    pub fn call(id: &str) -> Self {
        let desc = MachineDescriptor {
            ns: "bench".into(),
            r#ref: Reference::Id(id.to_owned().into()),
            range: HistoryRange { after: None, limit: Some(1), direction: Direction::Backward },
        };
        Self(wire::write_call::<Call>(&DescribedParams { desc, a: Value::bin(&[0x5a; ARGUMENT]) }, 0))
    }
}

// === impl Caller ===

impl Caller {
    pub async fn connect(address: SocketAddr, number: usize) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // What goes wrong with the connection, its requests say.
            let _ = driver.await;
        });
        let mut headers = HeaderMap::new();
        headers.insert(HOST, address.to_string().parse()?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-thrift"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/x-thrift"));
        let id = HeaderValue::from_str(&format!("bench-{number}"))?;
        for name in ["woody.trace-id", "woody.span-id"] {
            headers.insert(HeaderName::from_static(name), id.clone());
        }
        headers.insert(HeaderName::from_static("woody.parent-id"), HeaderValue::from_static("undefined"));
        Ok(Self { connection, headers, clock: Clock::system() })
    }

    pub async fn start(&mut self, message: &Message) -> Result<(), Failure> {
        self.exchange::<Start>(message).await??;
        Ok(())
    }

    pub async fn call(&mut self, message: &Message) -> Result<Value, Failure> {
        Ok(self.try_call(message).await??)
    }

    /// A Call that may be refused. The outer error is any other: of the connection, or an exception.
    pub async fn try_call(&mut self, message: &Message) -> Result<Result<Value, Refusal>, Failure> {
        self.exchange::<Call>(message).await
    }

    async fn exchange<M: Method>(&mut self, message: &Message) -> Result<Result<M::Success, Refusal>, Failure> {
        let mut request = Request::new(Full::new(message.0.clone()));
        *request.method_mut() = Verb::POST;
        *request.uri_mut() = Uri::from_static("/v1/automaton");
        *request.headers_mut() = self.headers.clone();
        let deadline = HeaderValue::from_str(&format_deadline(self.clock.now() + PATIENCE_MS))?;
        request.headers_mut().insert(HeaderName::from_static("woody.deadline"), deadline);
        self.connection.ready().await?;
        let response = self.connection.send_request(request).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let reason = head.headers.get("woody.error-reason").map(HeaderValue::as_bytes).unwrap_or_default();
            let reason = String::from_utf8_lossy(reason).into_owned();
            // Else the connection can't be used again.
            body.collect().await?;
            return Ok(Err(Refusal { status: head.status, reason }));
        }
        let body = body.collect().await?.to_bytes();
        let mut reader = Reader::new(body.clone(), Limits::default());
        Header::read(&mut reader)?;
        let result = body.slice(reader.position()..);
        match wire::read_reply::<M>(result, Limits::default())? {
            Ok(success) => Ok(Ok(success)),
            Err(exception) => Err(exception.name().into()),
        }
    }

    /// A number from the service's metrics.
    pub async fn metrics(&mut self) -> Result<String, Failure> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = Uri::from_static("/metrics");
        request.headers_mut().insert(HOST, self.headers[HOST].clone());
        self.connection.ready().await?;
        let response = self.connection.send_request(request).await?;
        Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
    }
}
