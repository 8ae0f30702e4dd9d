//! A peer that reads a request and sends what it was told to, byte for byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use machinegun::clock::{Clock, ClockHand, Snowflakes};
use machinegun::woody::{Client, ClientSettings, Context, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// 2030-01-01T00:00:00Z, where the clock stands.
pub const NOW: i64 = 1_893_456_000_000;
pub const DEADLINE: i64 = NOW + 1500;
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Str("hi", 1), and its reply with the struct alone.
pub const CALL: &str = "8001000100000003537472000000000b00010000000268690800020000000100";
pub const REPLY: &str = "8001000200000003537472000000000b000000000002686900";
pub const RESULT: &str = "0b000000000002686900";

/// One connection, taken by the peer.
pub struct Taken {
    stream: TcpStream,
    read: Vec<u8>,
}

pub struct Script {
    listener: TcpListener,
    pub address: SocketAddr,
    pub client: Arc<Client>,
    pub hand: ClockHand,
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("hex") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A reply with a length.
pub fn response(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body.to_vec()].concat()
}

pub fn ok(body: &str) -> Vec<u8> {
    response("200 OK", &["content-type: application/x-thrift"], &unhex(body))
}

pub fn context() -> Context {
    Context {
        trace_id: "TR".into(),
        span_id: "SP".into(),
        parent_id: "undefined".into(),
        deadline: None,
        meta: vec![("user-identity.id".into(), "u1".into())],
        trace: vec![
            (
                http::HeaderName::from_static("traceparent"),
                http::HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ),
            (http::HeaderName::from_static("baggage"), http::HeaderValue::from_static("k=v+w")),
        ],
    }
}

// === impl Script ===

impl Script {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ClientSettings)) -> Self {
        let mut settings = ClientSettings::default();
        change(&mut settings);
        let (clock, hand) = Clock::manual(NOW);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ids = Snowflakes::new(7, clock.clone());
        Self {
            address: listener.local_addr().expect("an address"),
            listener,
            client: Arc::new(Client::new(settings, clock, ids)),
            hand,
        }
    }

    pub async fn call(&self) -> Result<Bytes, Error> {
        self.call_to(&format!("http://{}/v1/processor", self.address)).await
    }

    pub async fn call_to(&self, url: &str) -> Result<Bytes, Error> {
        let url = url.parse().expect("a url");
        let context = context();
        let call = self.client.call(&url, &context, Some(DEADLINE), unhex(CALL).into());
        tokio::time::timeout(PATIENCE, call).await.expect("an outcome in time")
    }

    pub async fn take(&self) -> Taken {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        Taken { stream: accepted.expect("a connection in time").expect("accepted").0, read: Vec::new() }
    }

    pub async fn nobody_came(&self) {
        let accepting = std::pin::pin!(self.listener.accept());
        assert!(futures_util::poll!(accepting).is_pending(), "a connection came");
    }

    /// One call, answered with these bytes, the connection closed behind them.
    pub async fn answered(&self, reply: impl AsRef<[u8]>) -> Result<Bytes, Error> {
        let peer = async {
            let mut taken = self.take().await;
            taken.request().await;
            taken.send(reply).await;
        };
        tokio::join!(self.call(), peer).0
    }

    /// One call, answered with these bytes and then silence, until its deadline.
    pub async fn left_alone(&self, reply: impl AsRef<[u8]>) -> Result<Bytes, Error> {
        let peer = async {
            let mut taken = self.take().await;
            taken.request().await;
            taken.send(reply).await;
            // What was sent is in the client's socket; it takes it when the runtime has looked at the kernel.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            self.hand.advance(Duration::from_millis(1499));
            tokio::task::yield_now().await;
            self.hand.advance(Duration::from_millis(1));
            taken.closed().await;
        };
        tokio::join!(self.call(), peer).0
    }
}

// === impl Taken ===

impl Taken {
    /// The next request: its head and its body.
    pub async fn request(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.read[..at].to_vec()).expect("ASCII");
                let length = head
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|rest| rest.lines().next().and_then(|length| length.trim().parse::<usize>().ok()));
                let end = at + 4 + length.expect("a length");
                if self.read.len() >= end {
                    let body = self.read[at + 4..end].to_vec();
                    self.read.drain(..end);
                    return (head, body);
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            assert!(read.expect("bytes in time").expect("readable") > 0, "closed in the middle of a request");
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("written");
    }

    /// Whether the client has closed or sent anything by now.
    pub async fn has_ended(&mut self) -> bool {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let reading = std::pin::pin!(self.stream.read_buf(&mut self.read));
        futures_util::poll!(reading).is_ready()
    }

    /// The client closes, and has sent nothing more.
    pub async fn closed(&mut self) {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        assert!(read.expect("closed in time").is_ok_and(|read| read == 0) && self.read.is_empty());
    }
}
