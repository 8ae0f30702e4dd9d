//! A client of the service.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use machinegun::clock::{Clock, Snowflakes};
use machinegun::wire::{
    self, Call, DescribedParams, DescriptorParams, Direction, Exception, GetHistory, GetHistoryParams, GetMachine,
    HistoryRange, Limits, Machine, MachineDescriptor, Method, Notify, Reference, Remove, RemoveParams, Repair,
    SimpleRepair, SimpleRepairParams, SinkEvent, Start, StartParams, Value,
};
use machinegun::woody::{Client, ClientSettings, Context, Error};

use super::PATIENCE_MS;
use super::processor::{Order, text};

/// The one that a configuration has if nobody asks for others.
pub const NAMESPACE: &str = "payments";

/// Cheap to clone: all clones share their connections.
#[derive(Clone)]
pub struct Peer {
    client: Arc<Client>,
    ns: Bytes,
    url: Uri,
    event_sink_url: Uri,
    /// Milliseconds that a request has.
    patience_ms: i64,
    ids: Arc<Snowflakes>,
    clock: Clock,
    /// Headers of a trace that its calls are made in.
    trace: Vec<(HeaderName, HeaderValue)>,
}

/// An exception that the method declares, or no answer of the method at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    Thrown(Exception),
    Failed(Error),
}

pub type Answer<T> = Result<T, Failure>;

// === impl Peer ===

impl Peer {
    pub fn of(address: SocketAddr) -> Self {
        let clock = Clock::system();
        let ids = Snowflakes::new(0, clock.clone());
        let settings = ClientSettings { pool_size: 200, ..ClientSettings::default() };
        let url = |path: &str| format!("http://{address}{path}").parse().expect("a url");
        Self {
            client: Arc::new(Client::new(settings, clock.clone(), ids.clone())),
            ns: bytes(NAMESPACE),
            url: url("/v1/automaton"),
            event_sink_url: url("/v1/event_sink"),
            patience_ms: PATIENCE_MS,
            ids,
            clock,
            trace: Vec::new(),
        }
    }

    /// The same for the machines of another namespace.
    pub fn in_namespace(&self, ns: &str) -> Self {
        Self { ns: bytes(ns), ..self.clone() }
    }

    /// The same, within a trace.
    pub fn traced(&self, name: &'static str, value: &'static str) -> Self {
        let trace = vec![(HeaderName::from_static(name), HeaderValue::from_static(value))];
        Self { trace, ..self.clone() }
    }

    /// The same with other deadlines.
    pub fn with_patience(&self, milliseconds: i64) -> Self {
        Self { patience_ms: milliseconds, ..self.clone() }
    }

    pub async fn ask<M: Method>(&self, args: M::Args, patience_ms: i64) -> Answer<M::Success> {
        self.ask_at::<M>(&self.url, args, patience_ms).await
    }

    async fn ask_at<M: Method>(&self, url: &Uri, args: M::Args, patience_ms: i64) -> Answer<M::Success> {
        let (deadline, context) = (self.clock.now() + patience_ms, self.context());
        let answer = self.client.call(url, &context, Some(deadline), wire::write_call::<M>(&args, 0)).await;
        let answer = wire::read_reply::<M>(answer.map_err(Failure::Failed)?, Limits::default());
        answer.expect("a well-formed answer").map_err(Failure::Thrown)
    }

    pub async fn start(&self, id: &str, order: &Order) -> Answer<()> {
        let params = StartParams { ns: self.ns.clone(), id: bytes(id), a: order.value() };
        self.ask::<Start>(params, self.patience_ms).await.map(|_| ())
    }

    /// The response must be the order's.
    pub async fn call(&self, id: &str, order: &Order) -> Answer<()> {
        self.call_within(self.patience_ms, id, order).await
    }

    pub async fn call_within(&self, milliseconds: i64, id: &str, order: &Order) -> Answer<()> {
        responded(order, self.ask::<Call>(self.described(id, order.value()), milliseconds).await)
    }

    pub async fn repair(&self, id: &str, order: &Order) -> Answer<()> {
        responded(order, self.ask::<Repair>(self.described(id, order.value()), self.patience_ms).await)
    }

    pub async fn simple_repair(&self, id: &str) -> Answer<()> {
        let params = SimpleRepairParams { ns: self.ns.clone(), r#ref: Reference::Id(bytes(id)) };
        self.ask::<SimpleRepair>(params, self.patience_ms).await.map(|_| ())
    }

    pub async fn notify(&self, id: &str, order: &Order) -> Answer<()> {
        // The processor needs no history to note it.
        let range = HistoryRange { limit: Some(1), direction: Direction::Backward, after: None };
        let params = DescribedParams { desc: self.descriptor(id, range), a: order.value() };
        self.ask::<Notify>(params, self.patience_ms).await.map(|_| ())
    }

    pub async fn remove(&self, id: &str) -> Answer<()> {
        self.ask::<Remove>(RemoveParams { ns: self.ns.clone(), id: bytes(id) }, self.patience_ms).await.map(|_| ())
    }

    /// None: there is no such machine.
    pub async fn machine(&self, id: &str) -> Answer<Option<Machine>> {
        match self
            .ask::<GetMachine>(DescriptorParams { desc: self.descriptor(id, HistoryRange::ALL) }, self.patience_ms)
            .await
        {
            Ok(machine) => Ok(Some(machine)),
            Err(Failure::Thrown(Exception::MachineNotFound)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The id of the machine that has the tag.
    pub async fn tagged(&self, tag: &str) -> Answer<Option<String>> {
        let range = HistoryRange { limit: Some(1), ..HistoryRange::ALL };
        let desc = MachineDescriptor { ns: self.ns.clone(), r#ref: Reference::Tag(bytes(tag)), range };
        match self.ask::<GetMachine>(DescriptorParams { desc }, self.patience_ms).await {
            Ok(machine) => Ok(Some(String::from_utf8(machine.id.to_vec()).expect("UTF-8"))),
            Err(Failure::Thrown(Exception::MachineNotFound)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A page of a ledger.
    pub async fn ledger(&self, sink: &str, range: HistoryRange) -> Answer<Vec<SinkEvent>> {
        let params = GetHistoryParams { event_sink_id: bytes(sink), range };
        let page = self.ask_at::<GetHistory>(&self.event_sink_url, params, self.patience_ms).await?;
        Ok(page.decoded().map(|entry| entry.expect("a well-formed entry")).collect())
    }

    fn context(&self) -> Context {
        Context { trace: self.trace.clone(), ..Context::root(&self.ids) }
    }

    fn descriptor(&self, id: &str, range: HistoryRange) -> MachineDescriptor {
        MachineDescriptor { ns: self.ns.clone(), r#ref: Reference::Id(bytes(id)), range }
    }

    fn described(&self, id: &str, a: Value) -> DescribedParams {
        DescribedParams { desc: self.descriptor(id, HistoryRange::ALL), a }
    }
}

fn bytes(id: &str) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn responded(order: &Order, answer: Answer<Value>) -> Answer<()> {
    answer.map(|response| assert_eq!(text(&response), order.token, "the response is another step's"))
}
