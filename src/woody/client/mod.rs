//! The client: calls one peer's URL at a time, through a bounded pool.
//!
//! Policy. A call has a deadline and never outlives it. Every failure says whether the peer may have done the work: what
//! was surely not sent is unavailable, what was sent and not answered is unknown. Nothing that may have been received is
//! ever sent twice: only a request that the connection gave back untouched goes out again, on another connection.

mod pool;
mod relay;
mod reply;
mod secure;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::ClientConfig;
use tracing::Instrument;
use tracing::field::display;

use super::bodies::Bodies;
use super::context::Context;
use super::deadline::format_deadline;
use super::error::Error;
use super::lines::Made;
use crate::clock::{Clock, Snowflakes, Stopwatch};
use crate::telemetry::trace::{self, traced};
use pool::{Leased, Peer, Pool};
use secure::Secure;

static TRACE_ID: HeaderName = HeaderName::from_static("woody.trace-id");
static SPAN_ID: HeaderName = HeaderName::from_static("woody.span-id");
static PARENT_ID: HeaderName = HeaderName::from_static("woody.parent-id");
static DEADLINE: HeaderName = HeaderName::from_static("woody.deadline");
const THRIFT: HeaderValue = HeaderValue::from_static("application/x-thrift");

/// Milliseconds that a call without a deadline may take, as the peers' own client has it.
const NO_DEADLINE_MS: i64 = 5_000;

#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Connections at once, busy and idle together.
    pub pool_size: usize,
    /// How long an idle connection is kept. Below the peers' own idle timeouts, so that we close first.
    pub keep_alive: Duration,
    /// For peers of `https` URLs: whom to trust. None: they are not called.
    pub tls: Option<Arc<ClientConfig>>,
    /// Prefer a host's IPv6 addresses.
    pub inet6: bool,
    /// The largest reply body, in bytes.
    pub max_response_size: usize,
    /// Where replies count while they are in memory.
    pub replies: Arc<Bodies>,
    /// Whom it calls, as the interface calls it; for logs and traces.
    pub service: &'static str,
}

/// Calls peers. One per namespace, so that a slow processor starves no other.
#[derive(Debug)]
pub struct Client {
    pool: Arc<Pool>,
    clock: Clock,
    ids: Arc<Snowflakes>,
    max_response_size: usize,
    replies: Arc<Bodies>,
    service: &'static str,
}

// === impl ClientSettings ===

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            pool_size: 50,
            keep_alive: Duration::from_secs(4),
            tls: None,
            inet6: false,
            max_response_size: 64 * 1024 * 1024,
            replies: Bodies::unbounded(),
            service: "Service",
        }
    }
}

// === impl Client ===

impl Client {
    pub fn new(settings: ClientSettings, clock: Clock, ids: Arc<Snowflakes>) -> Self {
        Self {
            max_response_size: settings.max_response_size,
            replies: settings.replies,
            service: settings.service,
            pool: Pool::new(
                settings.pool_size,
                settings.keep_alive,
                settings.inet6,
                settings.tls.map(Secure::new),
                clock.clone(),
            ),
            clock,
            ids,
        }
    }

    /// Sends a whole call and returns the result struct behind the reply's envelope. The call becomes a child of
    /// `context`, and `deadline` (unix milliseconds) goes in the place of the context's own. Without one the peer is told
    /// of none, and has 5 s.
    pub async fn call(
        &self,
        url: &Uri,
        context: &Context,
        deadline: Option<i64>,
        message: Bytes,
    ) -> Result<Bytes, Error> {
        let span_id = self.ids.next().to_string();
        let made = Made {
            service: self.service,
            message: &message,
            url,
            context,
            span_id: &span_id,
            deadline,
            watch: Stopwatch::start(),
        };
        let exchange = async {
            made.begun();
            let result = self.exchange(url, context, &span_id, deadline, message.clone()).await;
            made.ended(&result);
            result
        };
        let span = traced!(tracing::field::Empty, kind = "client");
        if !span.is_disabled() {
            span.record("otel.name", display(format_args!("client {made}")));
        }
        exchange.instrument(span).await
    }

    async fn exchange(
        &self,
        url: &Uri,
        context: &Context,
        span_id: &str,
        deadline: Option<i64>,
        message: Bytes,
    ) -> Result<Bytes, Error> {
        let now = self.clock.now();
        let told = deadline;
        let deadline = told.unwrap_or(now.saturating_add(NO_DEADLINE_MS));
        if now >= deadline {
            return Err(Error::unavailable("deadline reached"));
        }
        let peer = Peer::of(url)?;
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        let path = url.path_and_query().cloned();
        *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        *request.headers_mut() = self.headers(&peer, context, span_id, told)?;

        let (connection, response) = self.send(&peer, request, now, deadline).await?;
        let (parts, mut body) = response.into_parts();
        if parts.status != http::StatusCode::OK {
            // An error's body is nobody's; only without one is the connection good for more.
            if hyper::body::Body::is_end_stream(&body) {
                self.pool.checkin(connection);
            }
            return Err(reply::refused(parts.status, &parts.headers));
        }
        let whole = reply::collect(&mut body, self.max_response_size, &self.replies);
        let body = match self.clock.timeout_at(deadline, whole).await {
            Ok(body) => body?,
            Err(_) => return Err(Error::unknown("parse http response body error: timeout")),
        };
        self.pool.checkin(connection);
        reply::open(body)
    }

    /// The head of the reply to a whole request, by the deadline, and the connection that its body still comes on.
    async fn send(
        &self,
        peer: &Peer,
        mut request: Request<Full<Bytes>>,
        now: i64,
        deadline: i64,
    ) -> Result<(Leased, Response<Incoming>), Error> {
        let connect_by = now + connect_timeout(deadline - now);
        let exchange = async {
            loop {
                let mut connection = self.pool.checkout(peer, connect_by.min(deadline)).await?;
                match connection.sender.try_send_request(request).await {
                    Ok(response) => return Ok((connection, response)),
                    Err(mut error) => match error.take_message() {
                        // Given back before one byte of it was written: the connection had closed meanwhile.
                        Some(untouched) if connection.reused => request = untouched,
                        Some(_) => return Err(Error::unavailable("closed before the request was sent")),
                        None => return Err(reply::send_failed(&error.into_error())),
                    },
                }
            }
        };
        self.clock.timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(reply::timed_out()))
    }

    fn headers(
        &self,
        peer: &Peer,
        context: &Context,
        span_id: &str,
        deadline: Option<i64>,
    ) -> Result<HeaderMap, Error> {
        let value = |what: &str, bytes: Bytes| {
            HeaderValue::from_maybe_shared(bytes)
                .map_err(|_| Error::unexpected(format!("{what} of the context is no header value")))
        };
        let mut headers = HeaderMap::with_capacity(9 + context.meta.len() + context.trace.len());
        headers.insert(HOST, peer.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("machinegun"));
        headers.insert(CONTENT_TYPE, THRIFT);
        headers.insert(ACCEPT, THRIFT);
        // Servers may give empty ids, and some refuse them: they are never passed on.
        let trace_id = match context.trace_id.is_empty() {
            true => self.ids.next().to_string().into(),
            false => context.trace_id.clone(),
        };
        let parent_id = match context.span_id.is_empty() {
            true => Bytes::from_static(b"undefined"),
            false => context.span_id.clone(),
        };
        headers.insert(TRACE_ID.clone(), value("trace id", trace_id)?);
        headers.insert(SPAN_ID.clone(), value("span id", span_id.to_owned().into())?);
        headers.insert(PARENT_ID.clone(), value("span id", parent_id)?);
        if let Some(deadline) = deadline {
            headers.insert(DEADLINE.clone(), value("deadline", format_deadline(deadline).into())?);
        }
        for (key, meta) in &context.meta {
            let name = HeaderName::from_bytes(&[b"woody.meta.", &key[..]].concat())
                .map_err(|_| Error::unexpected("a meta key of the context is no header name"))?;
            headers.append(name, value("meta", meta.clone())?);
        }
        match trace::depart() {
            // The peer's span becomes a child of ours.
            Some(ours) => {
                for (name, header) in ours {
                    let name = HeaderName::from_bytes(&name)
                        .map_err(|_| Error::unexpected("a propagator made no header name"))?;
                    headers.append(name, value("trace", header)?);
                }
            }
            None => {
                for (name, value) in &context.trace {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        Ok(headers)
    }
}

/// A fifth of the remaining time, or a second where twice that fifth is more: as peers know it.
fn connect_timeout(remaining_ms: i64) -> i64 {
    match remaining_ms / 5 {
        fifth if fifth * 2 > 1000 => 1000,
        fifth => fifth,
    }
}

impl Peer {
    fn of(url: &Uri) -> Result<Self, Error> {
        let (secure, port) = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => (false, 80),
            Some(scheme) if *scheme == Scheme::HTTPS => (true, 443),
            _ => return Err(Error::unavailable(format!("unsupported_url_scheme: {url}"))),
        };
        let authority = url.authority().ok_or_else(|| Error::unavailable(format!("no host in the url: {url}")))?;
        let host = authority.host();
        // What stands before an @ is for nobody here, and not for the peer.
        let shown = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, shown)| shown);
        Ok(Self {
            host: HeaderValue::from_str(shown).map_err(|_| Error::unavailable(format!("no host in the url: {url}")))?,
            name: host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned(),
            port: authority.port_u16().unwrap_or(port),
            secure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connect_timeout_is_a_fifth_or_a_second() {
        for (remaining, expected) in [(10, 2), (1500, 300), (2504, 500), (2505, 1000), (60_000, 1000), (4, 0)] {
            assert_eq!(connect_timeout(remaining), expected, "{remaining}");
        }
    }

    #[test]
    fn a_url_names_a_peer() {
        let peer = |url: &str| Peer::of(&url.parse().expect("a url"));
        let named = peer("http://user@Host:8022/v1").expect("a peer");
        assert_eq!((named.name.as_str(), named.port, named.host.as_bytes()), ("Host", 8022, &b"Host:8022"[..]));
        let plain = peer("http://[::1]/").expect("a peer");
        assert_eq!((plain.name.as_str(), plain.port, plain.host.as_bytes()), ("::1", 80, &b"[::1]"[..]));
        let secure = peer("https://host/").expect("a peer");
        assert_eq!((secure.name.as_str(), secure.port, secure.secure), ("host", 443, true));
        assert_ne!(secure, peer("http://host:443/").expect("a peer"));
        for bad in ["ftp://host/", "host", "/v1"] {
            assert_eq!(peer(bad).expect_err(bad).class, crate::woody::Class::ResourceUnavailable, "{bad}");
        }
    }
}
