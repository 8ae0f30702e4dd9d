//! A client of raw bytes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far longer than anything takes: a test that waits for what never comes fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Str("hi"), sequence number 0.
pub const STR: &str = "8001000100000003537472000000000b000100000002686900";
pub const STR_REPLY: &str = "8001000200000003537472000000000b000000000002686900";

/// A request under construction: a valid call of Str, unless told otherwise.
#[derive(Clone)]
pub struct Request {
    line: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    length: bool,
}

pub struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).expect("hex") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A whole message: `type` 1 is a call, 4 oneway; the args struct in hex.
pub fn message(kind: u8, name: &str, seqid: i32, args: &str) -> Vec<u8> {
    let mut bytes = vec![0x80, 1, 0, kind];
    bytes.extend((name.len() as i32).to_be_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(seqid.to_be_bytes());
    bytes.extend(unhex(args));
    bytes
}

/// The args of Str, Void and One.
pub fn text(text: &str) -> String {
    format!("0b0001{}{}00", hex(&(text.len() as i32).to_be_bytes()), hex(text.as_bytes()))
}

/// A call of Str with a text of `size` bytes.
pub fn long_call(size: usize) -> Vec<u8> {
    let mut bytes = message(1, "Str", 0, "0b0001");
    bytes.extend((size as i32).to_be_bytes());
    bytes.resize(bytes.len() + size, b'x');
    bytes.push(0);
    bytes
}

// === impl Request ===

impl Request {
    pub fn new() -> Self {
        Self { line: "POST /v1/svc HTTP/1.1".into(), headers: Vec::new(), body: unhex(STR), length: true }
            .with("host", "localhost")
            .with("content-type", "application/x-thrift")
            .with("accept", "application/x-thrift")
            .with("woody.trace-id", "t")
            .with("woody.span-id", "s")
            .with("woody.parent-id", "p")
    }

    pub fn line(mut self, line: &str) -> Self {
        self.line = line.to_owned();
        self
    }

    pub fn path(self, path: &str) -> Self {
        self.line(&format!("POST {path} HTTP/1.1"))
    }

    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub fn replace(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).with(name, value)
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn call(self, name: &str, args: &str) -> Self {
        self.body(message(1, name, 0, args))
    }

    /// Leaves `content-length` to the test.
    pub fn unmeasured(mut self) -> Self {
        self.length = false;
        self
    }

    pub fn map_names(mut self, change: impl Fn(&str) -> String) -> Self {
        for (name, _) in &mut self.headers {
            *name = change(name);
        }
        self
    }

    pub fn head(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        for (name, value) in &self.headers {
            line(name, value);
        }
        if self.length {
            line("content-length", self.body.len().to_string().as_bytes());
        }
        bytes.extend(b"\r\n");
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

// === impl Peer ===

impl Peer {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("in time").expect("written");
    }

    /// Sends what the server may stop reading.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("in time");
    }

    /// As long as the server takes it.
    pub async fn can_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("in time").is_ok()
    }

    /// Whether the server has said anything by now, or closed.
    pub fn has_heard(&mut self) -> bool {
        !matches!(self.stream.try_read_buf(&mut self.read), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        read.expect("bytes in time").is_ok_and(|read| read > 0)
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.more().await, "closed in the middle: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The next line that is not empty.
    pub async fn line(&mut self) -> String {
        let head = self.until(b"\r\n\r\n").await;
        String::from_utf8_lossy(&head).trim_end().to_owned()
    }

    pub async fn answer(&mut self) -> Answer {
        self.answer_to("POST").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.until(b"\r\n\r\n").await;
        let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let status = String::from_utf8_lossy(lines.next().expect("a status line")).into_owned();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
                let name = String::from_utf8_lossy(&line[..colon]).to_lowercase();
                (name, line[colon + 1..].trim_ascii().to_vec())
            })
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        // Some peers fail over a reply without a length.
        let length: usize = answer.header("content-length").expect("a length").parse().expect("a number");
        let length = if method == "HEAD" { 0 } else { length };
        while self.read.len() < length {
            assert!(self.more().await, "closed in the middle of a body");
        }
        answer.body = self.read.drain(..length).collect();
        answer
    }

    /// The server closes, and has nothing more to say.
    pub async fn closed(&mut self) {
        assert!(self.read.is_empty() && !self.more().await, "{:?}", String::from_utf8_lossy(&self.read));
    }

    pub async fn exchange(&mut self, request: &Request) -> Answer {
        self.send(request.bytes()).await;
        self.answer().await
    }
}

// === impl Answer ===

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        let value = found.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        assert!(found.next().is_none(), "{name} comes once");
        value
    }

    fn class_and_reason(&self) -> (Option<String>, Option<String>) {
        (self.header("woody.error-class"), self.header("woody.error-reason"))
    }

    /// A result: these bytes, no error headers.
    #[track_caller]
    pub fn is_result(&self, body: &str) {
        assert_eq!((self.status, hex(&self.body).as_str()), (200, body), "{self:?}");
        assert_eq!(self.class_and_reason(), (None, None));
        assert_eq!(self.header("content-type").as_deref(), Some("application/x-thrift"));
    }

    #[track_caller]
    pub fn is_ok(&self) {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.class_and_reason(), (None, None));
    }

    /// A refusal or failure with woody headers, to the letter.
    #[track_caller]
    pub fn is_error(&self, status: u16, class: &str, reason: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.class_and_reason(), (Some(class.to_owned()), Some(reason.to_owned())));
        assert!(self.body.is_empty() && self.header("content-type").is_none(), "{self:?}");
    }

    /// As [`Self::is_error`], the reason only by its beginning.
    #[track_caller]
    pub fn is_error_like(&self, status: u16, class: &str, beginning: &str) {
        let reason = self.header("woody.error-reason").unwrap_or_default();
        assert!(reason.starts_with(beginning), "{self:?}");
        self.is_error(status, class, &reason);
    }

    #[track_caller]
    pub fn is_unexpected(&self, status: u16, reason: &str) {
        self.is_error(status, "Result Unexpected", reason);
    }

    /// Answered below woody.
    #[track_caller]
    pub fn is_bare(&self, statuses: &[u16]) {
        assert!(statuses.contains(&self.status) && self.body.is_empty(), "{self:?}");
        assert_eq!(self.class_and_reason(), (None, None));
    }
}
