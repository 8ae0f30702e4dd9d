//! How many requests to the table are under way at once.
//!
//! A table that can't keep up answers everything late, and the later the more it is asked. So an instance asks it for a
//! bounded number of things at once. What has no place waits here, for half of its time at the most, and is then surely
//! not done. Leases don't take part in this: they go out whatever else waits ([`super::client::Table::apart`]).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpRequest;
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::AT_ONCE;
use crate::clock::Clock;

/// The places of requests that are under way.
#[derive(Debug)]
pub struct Places {
    calls: Room,
    scans: Room,
    /// For how long a request waits for a place, in milliseconds.
    patience_ms: i64,
    waiting: AtomicU64,
    refused: AtomicU64,
}

/// Places of one kind.
#[derive(Debug)]
struct Room {
    free: Arc<Semaphore>,
    most: usize,
    /// Which they are, for those who found none.
    name: &'static str,
}

/// What a request is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Call,
    /// Looks through indexes, on behalf of no caller.
    Scan,
}

/// Connections on which nothing is sent without a place.
#[derive(Debug)]
pub(super) struct Bounded<C> {
    inner: C,
    places: Arc<Places>,
    purpose: Purpose,
}

/// The body of an answer, which is under way until it has come.
struct Coming {
    body: SdkBody,
    _place: OwnedSemaphorePermit,
}

/// One that waits, for as long as it does.
struct Waiting<'a>(&'a Places);

#[derive(Debug, thiserror::Error)]
#[error("overload: {0} is reached: {1} requests to the table are under way")]
pub(super) struct Taken(&'static str, usize);

// === impl Places ===

impl Places {
    pub(super) fn new(most: usize, request_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            calls: Room::new("storage.max_concurrent_requests", most),
            scans: Room::new("the bound of scans", AT_ONCE),
            patience_ms: i64::try_from(request_timeout.as_millis() / 2).unwrap_or(i64::MAX / 4),
            waiting: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// How many requests are under way, those of scans aside.
    pub fn taken(&self) -> u64 {
        (self.calls.most - self.calls.free.available_permits()) as u64
    }

    /// How many requests wait for a place.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many requests had no place in their time.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn of(&self, purpose: Purpose) -> &Room {
        match purpose {
            Purpose::Call => &self.calls,
            Purpose::Scan => &self.scans,
        }
    }

    async fn wait(&self, room: &Room) -> Result<OwnedSemaphorePermit, ConnectorError> {
        let _waiting = Waiting::new(self);
        let clock = Clock::system();
        let until = clock.monotonic().saturating_add(self.patience_ms);
        tokio::select! {
            biased;
            // Never closed.
            Ok(place) = room.free.clone().acquire_owned() => Ok(place),
            () = clock.sleep_until_monotonic(until) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                // A kind that is not tried again by the SDK.
                Err(ConnectorError::user(Taken(room.name, room.most).into()))
            }
        }
    }
}

// === impl Room ===

impl Room {
    fn new(name: &'static str, most: usize) -> Self {
        // A semaphore has no more.
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(most)), most, name }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(places: &'a Places) -> Self {
        places.waiting.fetch_add(1, Ordering::Relaxed);
        Self(places)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Bounded ===

impl<C> Bounded<C> {
    pub(super) fn new(inner: C, places: Arc<Places>, purpose: Purpose) -> Self {
        Self { inner, places, purpose }
    }
}

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Bounded::new(inner, self.places.clone(), self.purpose))
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (inner, places, purpose) = (self.inner.clone(), self.places.clone(), self.purpose);
        HttpConnectorFuture::new(async move {
            let room = places.of(purpose);
            let place = match room.free.clone().try_acquire_owned() {
                Ok(place) => place,
                Err(_) => places.wait(room).await?,
            };
            let mut response = inner.call(request).await?;
            let body = std::mem::replace(response.body_mut(), SdkBody::taken());
            *response.body_mut() = SdkBody::from_body_1_x(Coming { body, _place: place });
            Ok(response)
        })
    }
}

// === impl Coming ===

impl Body for Coming {
    type Data = <SdkBody as Body>::Data;
    type Error = <SdkBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Body::poll_frame(Pin::new(&mut self.body), context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}
