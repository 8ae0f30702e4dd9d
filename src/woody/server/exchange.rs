//! One request and its reply. From the top: what HTTP asks for, the route, woody's headers, the body, the envelope, a
//! place, the handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, EXPECT, SERVER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinError;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use super::head::{Head, THRIFT};
use super::refusal::{ERROR_CLASS, ERROR_REASON, Refusal};
use super::routes::{BadEscape, Routes, Target};
use super::settings::{Connections, ServerSettings};
use super::watch::{Phase, Watch};
use super::{MethodKind, Original, Plain, Reply, Request as Call, Service};
use crate::clock::Clock;
use crate::telemetry::{scope, trace};
use crate::wire::{Header, HeaderError, MessageType, Reader};
use crate::woody::bodies::Bodies;
use crate::woody::context::Context;
use crate::woody::error::Error;
use crate::woody::lines::{Handled, Received};

/// The longest rest of a body that is skipped to keep a connection; past it, closing is cheaper.
const LONGEST_SKIP: u64 = 1_000_000;
/// The most that a body's claimed size allocates before its bytes are here.
const LARGEST_TRUST: u64 = 1024 * 1024;
/// Of the connections beyond all places, how many may be peers'.
pub(super) const SPARE_FOR_PEERS: usize = 32;

/// What all connections share.
pub(super) struct Shared {
    pub(super) routes: Routes,
    pub(super) settings: ServerSettings,
    pub(super) clock: Clock,
    pub(super) connections: Arc<Connections>,
    /// One for each request to a service that is worked on. Never closed.
    pub(super) places: Arc<Semaphore>,
    /// One for each request of a peer on a connection that is let in although there are too many. Never closed.
    pub(super) peers: Semaphore,
    /// Handlers live here, apart from their connections.
    pub(super) handlers: TaskTracker,
}

/// Counts for as long as it lives.
pub(super) struct Counted<'a>(&'a AtomicU64);

/// A body as it comes in, and whether some of it is still to come.
struct Upload {
    body: Incoming,
    unread: bool,
    broken: bool,
}

pub(super) async fn run(shared: &Shared, watch: &Arc<Watch>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    watch.enter(Phase::Busy);
    let (parts, body) = request.into_parts();
    let continues = parts.headers.contains_key(EXPECT);
    let mut upload = Upload { unread: !body.is_end_stream(), body, broken: false };
    let mut scope = Span::none();
    let mut response = match answer(shared, watch, parts, &mut upload, &mut scope).await {
        Ok(response) => response,
        Err(refusal) => {
            // What a handler failed with was said already.
            let said = matches!(refusal, Refusal::Failed(_));
            let response = refusal.response();
            if !said {
                let reason = response.headers().get(&ERROR_REASON).map(|it| String::from_utf8_lossy(it.as_bytes()));
                let (status, reason) = (response.status().as_u16(), reason.unwrap_or_default());
                scope.in_scope(|| tracing::warn!(status, error.reason = &*reason, "request refused"));
            }
            response
        }
    };
    response.headers_mut().insert(SERVER, HeaderValue::from_static("Machinegun"));
    if watch.is_spare() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    upload.finish(watch, continues, response.headers_mut());
    response
}

async fn answer(
    shared: &Shared,
    watch: &Watch,
    parts: Parts,
    upload: &mut Upload,
    scope: &mut Span,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let head = Head::read(&parts)?;
    if watch.ambiguous_length() {
        return Err(Refusal::Bare(StatusCode::BAD_REQUEST));
    }
    let service = match shared.routes.find(parts.uri.path()) {
        Ok(Some(Target::Service(service))) => service,
        Ok(Some(Target::Plain(plain))) => return plain_answer(shared, plain, parts).await,
        Ok(None) => return Err(Refusal::NotFound),
        Err(BadEscape) => return Err(Refusal::Bare(StatusCode::BAD_REQUEST)),
    };
    let _peer = if watch.is_spare() { Some(shared.peer(&parts.headers)?) } else { None };
    // A request that is refused is looked for by its ids too.
    if let Some((trace_id, span_id, parent_id)) = head.ids() {
        *scope = scope::request(trace_id, span_id, parent_id);
    }
    let context = head.check(&parts, &shared.clock)?;
    trace::arrive(scope, context.trace.iter().map(|(name, value)| (name.as_ref(), value.as_bytes())));
    serve(shared, watch, parts, upload, service, context).instrument(scope.clone()).await
}

/// What is done in the request's scope.
async fn serve(
    shared: &Shared,
    watch: &Watch,
    parts: Parts,
    upload: &mut Upload,
    service: Arc<dyn Service>,
    context: Context,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let body = upload.read(watch, shared.settings.max_body_size, &shared.settings.bodies).await?;
    if body.is_empty() {
        return Err(Refusal::BodyEmpty);
    }
    let mut args = Reader::new(body.clone(), shared.settings.limits);
    let header = Header::read(&mut args).map_err(Refusal::Envelope)?;
    if matches!(header.kind, MessageType::Reply | MessageType::Exception) {
        return Err(Refusal::Envelope(HeaderError::Type(header.kind as u8)));
    }
    let Some(kind) = service.method(&header.name) else {
        return Err(match header.name.contains(&b':') {
            true => Refusal::Multiplexed,
            false => Refusal::UnknownFunction(header.name),
        });
    };
    // Behind the body: who dribbles keeps nobody else from being worked on.
    let _place = shared.place(&parts.headers, context.deadline).await?;
    let original = Original { uri: parts.uri, headers: parts.headers, body };
    let call = Call { context, name: header.name, args, seqid: header.seqid, original };
    // The message's type counts for as much as the method's: no answer is awaited where either says so.
    let oneway = kind == MethodKind::Oneway || header.kind == MessageType::Oneway;
    let received = Received::new(service.name(), call.name.clone(), oneway, &call.context);
    trace::name(format_args!("server {received}"));
    received.invoked();
    let handler = async move { service.handle(call).await };
    // Detached, it keeps the request's scope.
    let handler = handler.in_current_span();
    if oneway {
        let handler = async move {
            // A panic is the task's own: nobody waits for it.
            match handler.await {
                Ok(_) => received.handled(&Handled::Result),
                Err(error) => received.handled(&Handled::Failure(&error)),
            }
        };
        shared.handlers.spawn(handler.in_current_span());
        return Ok(result(Bytes::new(), None));
    }
    let outcome = match shared.handlers.spawn(handler).await {
        Ok(Ok(Reply::Result { body, business })) => {
            received.handled(&business.map_or(Handled::Result, Handled::Exception));
            Ok(result(shared.settings.bodies.answer(body), business))
        }
        Ok(Ok(Reply::Relayed(response))) => {
            received.handled(&Handled::Result);
            // Counted already, where it came in.
            Ok(response.map(Full::new))
        }
        Ok(Err(error)) => {
            received.handled(&Handled::Failure(&error));
            Err(Refusal::Failed(error))
        }
        Err(ended) => {
            let (error, panic) = handler_ended(ended);
            match panic {
                Some(panic) => received.crashed(&panic),
                None => received.handled(&Handled::Failure(&error)),
            }
            Err(Refusal::Failed(error))
        }
    };
    received.sent(outcome.as_ref().map_or_else(Refusal::status, Response::status));
    outcome
}

async fn plain_answer(shared: &Shared, plain: Arc<dyn Plain>, parts: Parts) -> Result<Response<Full<Bytes>>, Refusal> {
    let handler = async move { plain.answer(parts).await };
    match shared.handlers.spawn(handler).await {
        Ok(response) => Ok(response.map(Full::new)),
        Err(ended) => {
            let (error, panic) = handler_ended(ended);
            tracing::error!(panic, "handler panicked");
            Err(Refusal::Failed(error))
        }
    }
}

fn result(body: Bytes, business: Option<&'static str>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-thrift"));
    debug_assert_eq!(headers[CONTENT_TYPE].as_bytes(), THRIFT);
    if let Some(exception) = business {
        headers.insert(ERROR_CLASS.clone(), HeaderValue::from_static("Business Error"));
        headers.insert(ERROR_REASON.clone(), HeaderValue::from_static(exception));
    }
    response
}

/// A handler that panicked takes nobody with it. Beside the error: what it said.
fn handler_ended(ended: JoinError) -> (Error, Option<String>) {
    match ended.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            (Error::unexpected(format!("handler panicked: {text}")), Some(text))
        }
        Err(_) => (Error::unknown("handler was stopped"), None),
    }
}

// === impl Shared ===

impl Shared {
    /// A place for a request to a service, as soon as one is free. None: it has one where it comes from.
    async fn place(&self, headers: &HeaderMap, deadline: Option<i64>) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(Some(place));
        }
        if self.is_passed_on(headers) {
            return Ok(None);
        }
        let _waiting = Counted::new(&self.connections.waiting);
        let place = self.places.clone().acquire_owned();
        let place = match deadline {
            Some(deadline) => self.clock.timeout_at(deadline, place).await.map_err(|_| Refusal::DeadlineReached)?,
            None => place.await,
        };
        Ok(place.ok())
    }

    fn is_passed_on(&self, headers: &HeaderMap) -> bool {
        self.settings.passed_on.as_ref().is_some_and(|mark| headers.contains_key(mark))
    }

    /// On a connection beyond all places: peers alone, and no more of them than leave room for probes.
    fn peer(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Refusal> {
        let permit = self.is_passed_on(headers).then(|| self.peers.try_acquire().ok()).flatten();
        permit.ok_or_else(|| {
            self.connections.refused.fetch_add(1, Ordering::Relaxed);
            Refusal::TooMany
        })
    }
}

// === impl Counted ===

impl<'a> Counted<'a> {
    pub(super) fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Upload ===

impl Upload {
    /// The whole body. One that says that it is too large, or larger than what is left for bodies, is not read at all.
    async fn read(&mut self, watch: &Watch, limit: usize, bodies: &Arc<Bodies>) -> Result<Bytes, Refusal> {
        let claimed = self.body.size_hint().exact();
        let too_large = |size: u64| usize::try_from(size).is_ok_and(|size| size <= limit);
        if claimed.is_some_and(|claimed| !too_large(claimed)) {
            return Err(Refusal::BodyTooLarge(limit));
        }
        if !self.unread {
            return Ok(Bytes::new());
        }
        let mut held = bodies.hold();
        held.expect(claimed.unwrap_or(0)).map_err(Refusal::Overload)?;
        watch.enter(Phase::Body);
        let mut whole = Bytes::new();
        let mut parts: Vec<u8> = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let data = match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => data,
                // Trailers are nobody's.
                Ok(Err(_)) => continue,
                Err(error) => {
                    self.broken = true;
                    let cause =
                        std::error::Error::source(&error).map_or_else(|| error.to_string(), |it| it.to_string());
                    return Err(Refusal::BodyBroken(cause));
                }
            };
            if data.len() > limit - whole.len().max(parts.len()) {
                return Err(Refusal::BodyTooLarge(limit));
            }
            held.grow(data.len()).map_err(Refusal::Overload)?;
            if whole.is_empty() && parts.is_empty() {
                whole = data;
            } else {
                if parts.is_empty() {
                    parts.reserve_exact(claimed.unwrap_or(0).min(LARGEST_TRUST) as usize);
                    parts.extend_from_slice(&std::mem::take(&mut whole));
                }
                // Never beyond what was claimed: what is not there does not count, and must not be taken either.
                let missing = claimed.map_or(0, |claimed| claimed as usize - parts.len());
                if parts.capacity() < parts.len() + data.len() && missing > 0 {
                    parts.reserve_exact(missing.min(parts.len().max(data.len())));
                }
                parts.extend_from_slice(&data);
            }
            if self.body.is_end_stream() {
                break;
            }
        }
        self.unread = false;
        watch.enter(Phase::Busy);
        parts.shrink_to_fit();
        Ok(held.keep(if parts.is_empty() { whole } else { parts.into() }))
    }

    /// Sees to the rest of a body that nobody read, so that the client can take the reply.
    fn finish(mut self, watch: &Arc<Watch>, continues: bool, headers: &mut HeaderMap) {
        let closes = headers.contains_key(CONNECTION);
        if !self.unread {
            watch.enter(Phase::Idle);
            return;
        }
        let short = self.body.size_hint().exact().is_some_and(|left| left <= LONGEST_SKIP);
        // Reading on would ask a client that waits for permission to send what nobody wants.
        if closes || continues || self.broken || !short {
            watch.leave_unread();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            watch.enter(Phase::Idle);
            return;
        }
        let entered = watch.enter(Phase::Skip);
        let watch = watch.clone();
        tokio::spawn(async move {
            while let Some(Ok(_)) = self.body.frame().await {}
            watch.leave(entered, Phase::Idle);
        });
    }
}
