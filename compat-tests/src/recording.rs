//! Recordings: what two proxies saw of a service, one exchange a line. README.md describes the format.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;

/// All exchanges of a file, in the order in which they began.
#[derive(Clone, Debug)]
pub struct Recording {
    pub name: String,
    pub exchanges: Vec<Exchange>,
    /// Unix milliseconds of its start, once somebody found out.
    pub epoch: Option<f64>,
    /// It is all of its file.
    pub whole: bool,
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The order of arrival over both proxies.
    pub seq: u64,
    pub direction: Direction,
    /// Milliseconds since the recording's start: the request was complete.
    pub began: f64,
    /// Milliseconds since the recording's start: the answer was complete, or the connection was gone.
    pub ended: f64,
    pub request: Request,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to service.
    Inbound,
    /// Service to processor or modernizer.
    Outbound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Headers,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Reply(Response),
    /// The peer hung up, or never answered. The text is the recorder's.
    Broken(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    pub body: Bytes,
}

pub type Headers = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    dir: String,
    t0: f64,
    t1: f64,
    request: RequestLine,
    response: ResponseLine,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    method: String,
    path: String,
    headers: Headers,
    body: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum ResponseLine {
    Broken { broken: String },
    Reply { status: u16, headers: Headers, body: String },
}

// === impl Recording ===

impl Recording {
    /// Reads a file. The recording is named after it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Self::parse(&name, &text)
    }

    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut exchanges = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let exchange = serde_json::from_str::<Line>(line)
                .map_err(|error| error.to_string())
                .and_then(Exchange::try_from)
                .map_err(|error| format!("{name}, line {}: {error}", number + 1))?;
            exchanges.push(exchange);
        }
        exchanges.sort_by(|one, other| one.began.total_cmp(&other.began).then(one.seq.cmp(&other.seq)));
        Ok(Self { name: name.to_owned(), exchanges, epoch: None, whole: true }.with_epoch())
    }

    /// The exchanges with these numbers only, in the same order.
    pub fn only(&self, seqs: &[u64]) -> Self {
        let exchanges = self.exchanges.iter().filter(|exchange| seqs.contains(&exchange.seq)).cloned().collect();
        Self { name: self.name.clone(), exchanges, epoch: self.epoch, whole: false }
    }
}

// === impl Exchange ===

impl Exchange {
    pub fn reply(&self) -> Option<&Response> {
        match &self.answer {
            Answer::Reply(response) => Some(response),
            Answer::Broken(_) => None,
        }
    }
}

impl TryFrom<Line> for Exchange {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let body = |text: &str| BASE64.decode(text).map(Bytes::from).map_err(|error| format!("body: {error}"));
        Ok(Self {
            seq: line.seq,
            direction: match line.dir.as_str() {
                "inbound" => Direction::Inbound,
                "outbound" => Direction::Outbound,
                other => return Err(format!("dir is neither inbound nor outbound: {other}")),
            },
            began: line.t0,
            ended: line.t1,
            request: Request {
                method: line.request.method,
                path: line.request.path,
                body: body(&line.request.body)?,
                headers: line.request.headers,
            },
            answer: match line.response {
                ResponseLine::Broken { broken } => Answer::Broken(broken),
                ResponseLine::Reply { status, headers, body: text } => {
                    Answer::Reply(Response { status, headers, body: body(&text)? })
                }
            },
        })
    }
}

// === impl Direction ===

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}
