//! A service on a real port, in memory, on a clock that is turned by hand; its callers, and whom it calls.
#![allow(dead_code, reason = "each test takes its part")]

mod callee;
pub mod http;
pub mod processor;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use machinegun::clock::{Clock, ClockHand};
use machinegun::config::{EventSinkSettings, NamespaceSettings, Settings, StorageSettings};
use machinegun::service::{self, Running};
use machinegun::wire::{
    self, DescribedParams, DescriptorParams, Exception, HistoryRange, Limits, MachineDescriptor, Method, Reader,
    Reference, RemoveParams, SimpleRepairParams, StartParams, Value,
};

pub use callee::Callee;
pub use http::Answer;

/// 2030-01-01T00:00:00Z
pub const NOW: i64 = 1_893_456_000_000;

/// Far longer than anything takes: a test that waits for what never comes fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const NAMESPACE: &str = "NS";

pub struct Live {
    running: Running,
    hand: ClockHand,
    context: Vec<(String, String)>,
}

/// Why a caller has no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    Thrown(Exception),
    Status(u16, String),
}

// === impl Live ===

impl Live {
    /// With these namespaces, on the clock that their processors have.
    pub async fn start(clock: (Clock, ClockHand), namespaces: Vec<NamespaceSettings>) -> Self {
        Self::start_with(clock, Settings { namespaces, ..Settings::default_with(StorageSettings::Memory) }).await
    }

    pub async fn start_with((clock, hand): (Clock, ClockHand), mut settings: Settings) -> Self {
        settings.woody_server.ip = [127, 0, 0, 1].into();
        settings.woody_server.port = 0;
        let running = service::start_on(settings, clock).await.expect("it starts");
        Self { running, hand, context: ids() }
    }

    /// What is asked from here on comes with these headers beside its ids.
    pub fn with_headers(&mut self, headers: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.context = ids().into_iter().chain(headers.iter().map(owned)).collect();
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    pub fn advance(&self, seconds: u64) {
        self.hand.advance(Duration::from_secs(seconds));
    }

    pub async fn ask<M: Method>(&self, args: M::Args) -> Result<M::Success, Failure> {
        result::<M>(&self.answer::<M>(args).await)
    }

    /// The reply as it comes.
    pub async fn answer<M: Method>(&self, args: M::Args) -> Answer {
        let path = if M::NAME == "GetHistory" { "/v1/event_sink" } else { "/v1/automaton" };
        let (line, body) = (format!("POST {path}"), wire::write_call::<M>(&args, 0));
        let exchange = http::exchange(self.running.address(), &line, &self.context, &body);
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// The line of a metric, once it is there: by its name and labels.
    pub async fn metric(&self, wanted: &str) -> String {
        let wait = async {
            loop {
                let metrics = http::exchange(self.running.address(), "GET /metrics", &[], &[]).await.body;
                let text = String::from_utf8(metrics.to_vec()).expect("UTF-8");
                if let Some(line) = text.lines().find(|line| line.starts_with(wanted)) {
                    return line.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{wanted} never came"))
    }

    pub async fn stop(self) {
        let stopped = tokio::time::timeout(PATIENCE, self.running.stop()).await;
        stopped.expect("it stops in time").expect("it stops in order");
    }
}

/// What a caller makes of an answer.
pub fn result<M: Method>(answer: &Answer) -> Result<M::Success, Failure> {
    if answer.status != 200 {
        let class = answer.header("woody.error-class").expect("a class").to_owned();
        return Err(Failure::Status(answer.status, class));
    }
    let mut reader = Reader::new(answer.body.clone(), Limits::default());
    wire::Header::read(&mut reader).expect("an envelope");
    let body = answer.body.slice(reader.position()..);
    wire::read_reply::<M>(body, Limits::default()).expect("what this caller can read").map_err(Failure::Thrown)
}

pub fn ids() -> Vec<(String, String)> {
    let ids = [("woody.trace-id", "trace"), ("woody.span-id", "span"), ("woody.parent-id", "undefined")];
    let thrift = [("content-type", "application/x-thrift"), ("accept", "application/x-thrift")];
    ids.into_iter().chain(thrift).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub fn refused(status: u16) -> Failure {
    Failure::Status(status, "Result Unexpected".to_owned())
}

// === what is asked ===

pub fn namespace(url: &str) -> NamespaceSettings {
    NamespaceSettings::new(NAMESPACE, url)
}

pub fn ledger(name: &str) -> EventSinkSettings {
    use machinegun::config::{Ack, EventSinkKind};
    let kind = EventSinkKind::Ledger { machine_id: name.to_owned() };
    EventSinkSettings { name: name.to_owned(), kind, ack: Ack::BeforeReply }
}

pub fn id(id: &str) -> Reference {
    Reference::Id(Bytes::copy_from_slice(id.as_bytes()))
}

pub fn tag(tag: &str) -> Reference {
    Reference::Tag(Bytes::copy_from_slice(tag.as_bytes()))
}

pub fn descriptor(r#ref: Reference) -> MachineDescriptor {
    MachineDescriptor { ns: NAMESPACE.into(), r#ref, range: HistoryRange::ALL }
}

pub fn start(id: &str, arg: &str) -> StartParams {
    StartParams { ns: NAMESPACE.into(), id: Bytes::copy_from_slice(id.as_bytes()), a: Value::str(arg) }
}

pub fn to(reference: Reference, arg: &str) -> DescribedParams {
    DescribedParams { desc: descriptor(reference), a: Value::str(arg) }
}

pub fn of(reference: Reference) -> DescriptorParams {
    DescriptorParams { desc: descriptor(reference) }
}

pub fn simply(r#ref: Reference) -> SimpleRepairParams {
    SimpleRepairParams { ns: NAMESPACE.into(), r#ref }
}

pub fn remove(id: &str) -> RemoveParams {
    RemoveParams { ns: NAMESPACE.into(), id: Bytes::copy_from_slice(id.as_bytes()) }
}
