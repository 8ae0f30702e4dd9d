//! Service `Automaton`, path `/v1/automaton`.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tracing::Span;

use super::failure::Failure;
use super::{args, checked, reply};
use crate::cluster::{Cluster, Place, Purpose};
use crate::engine::{Engine, EngineError, NamespaceEngine, Request};
use crate::machine::{Impact, MachineId, Refusal, RequestContext, Status, Success, shown_timer};
use crate::telemetry::{scope, trace};
use crate::wire::{
    self, Call, DescribedParams, DescriptorParams, Exception, GetMachine, HistoryRange, LegacyRepair, Machine,
    MachineDescriptor, MachineStatus, MachineStatusFailed, MachineStatusWorking, Method, Modernize, Notify,
    NotifyResponse, Protocol, Reference, Remove, RemoveParams, Repair, SimpleRepair, SimpleRepairParams, Start,
    StartParams, Value, Void,
};
use crate::woody::{self, Context, MethodKind, Original, Reply, Service};

pub struct Automaton {
    engine: Arc<Engine>,
    namespaces: HashMap<String, NamespaceInterface>,
    /// None: this instance is alone, and every machine is its own.
    cluster: Option<Arc<Cluster>>,
}

/// How a request came.
struct Asked {
    context: Context,
    /// Kept only where it may have to be passed on.
    original: Option<Original>,
}

/// A namespace as its callers meet it.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceInterface {
    /// Milliseconds that a request without a deadline has.
    pub default_processing_ms: i64,
    pub protocol: Protocol,
    /// GetMachine answers EventNotFound to an `after` that was never an event.
    pub strict_ranges: bool,
}

/// The machine that a request is about.
struct Subject<'a> {
    namespace: &'a Arc<NamespaceEngine>,
    interface: NamespaceInterface,
    id: MachineId,
}

// === impl Automaton ===

impl Automaton {
    /// INVARIANT: `namespaces` has an entry for each namespace of the engine.
    pub fn new(
        engine: Arc<Engine>,
        namespaces: HashMap<String, NamespaceInterface>,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        Self { engine, namespaces, cluster }
    }

    async fn start(&self, asked: Asked, params: StartParams) -> Result<Void, Failure> {
        let (namespace, interface) = self.namespace(&params.ns)?;
        // Start declares no exception for an id that can't be.
        let id = MachineId::new(params.id)
            .map_err(|error| Failure::Failed(woody::Error::unexpected(format!("MachineNotFound: {error}"))))?;
        about(namespace, &id);
        self.execute(Subject { namespace, interface, id }, Impact::Init { args: params.a }, asked).await?;
        Ok(Void)
    }

    async fn call(&self, asked: Asked, params: DescribedParams) -> Result<Value, Failure> {
        let (subject, range) = self.described(params.desc).await?;
        response(self.execute(subject, Impact::Call { args: params.a, range }, asked).await?)
    }

    /// The first generation's repair has no response and fewer exceptions.
    async fn repair(&self, asked: Asked, params: DescribedParams, seqid: i32) -> Result<Reply, woody::Error> {
        let (subject, range) = match self.described(params.desc).await {
            Ok(described) => described,
            Err(failure) => return reply::<Repair>(seqid, Err(failure)),
        };
        let protocol = subject.interface.protocol;
        let repaired = self.execute(subject, Impact::Repair { args: params.a, range }, asked).await;
        match protocol {
            Protocol::Damsel => reply::<LegacyRepair>(seqid, repaired.map(|_| Void)),
            Protocol::Current | Protocol::Y2021 => reply::<Repair>(seqid, repaired.and_then(response)),
        }
    }

    async fn simple_repair(&self, asked: Asked, params: SimpleRepairParams) -> Result<Void, Failure> {
        let subject = self.subject(&params.ns, params.r#ref).await?;
        self.execute(subject, Impact::SimpleRepair, asked).await?;
        Ok(Void)
    }

    async fn remove(&self, asked: Asked, params: RemoveParams) -> Result<Void, Failure> {
        let subject = self.subject(&params.ns, Reference::Id(params.id)).await?;
        self.execute(subject, Impact::Remove, asked).await?;
        Ok(Void)
    }

    async fn get_machine(&self, asked: Asked, params: DescriptorParams) -> Result<Machine, Failure> {
        let (subject, range) = self.described(params.desc).await?;
        let view = self.at_home(&subject, Purpose::Read, &asked, || subject.namespace.get(subject.id.clone(), &range));
        let view = view.await?;
        let events = 1..=view.record.last_event;
        if subject.interface.strict_ranges && range.after.is_some_and(|after| !events.contains(&after)) {
            return Err(Failure::Thrown(Exception::EventNotFound));
        }
        let Subject { namespace, interface, id } = subject;
        let status = match &view.record.status {
            Status::Failed { reason, .. } => {
                MachineStatus::Failed(MachineStatusFailed { reason: Some(reason.clone().into()) })
            }
            Status::Working(_) | Status::Removed { .. } => MachineStatus::Working(MachineStatusWorking {}),
        };
        let aux_state = view.record.aux_state.clone();
        let first_generation = interface.protocol == Protocol::Damsel;
        Ok(Machine {
            ns: Bytes::copy_from_slice(namespace.name().as_str().as_bytes()),
            id: id.as_bytes().clone(),
            history: wire::History::from_encoded(view.events),
            history_range: range,
            status: Some(status),
            aux_state_legacy: first_generation.then(|| aux_state.data.clone()),
            aux_state: Some(aux_state),
            timer: shown_timer(&view.record),
        })
    }

    async fn notify(&self, asked: Asked, params: DescribedParams) -> Result<NotifyResponse, Failure> {
        // Where the processor has no such signal, there is nothing to notify.
        let (_, interface) = self.namespace(&params.desc.ns)?;
        if !interface.protocol.has_notifications() {
            return Err(Failure::Thrown(Exception::NamespaceNotFound));
        }
        let (subject, range) = self.described(params.desc).await?;
        let deadline = self.deadline(interface, &asked.context);
        let request = Request { context: request_context(asked.context.clone()).detached(), deadline };
        let args = params.a.detached();
        let notify = || subject.namespace.notify(subject.id.clone(), args.clone(), range.clone(), request.clone());
        let id = self.at_home(&subject, Purpose::Step, &asked, notify).await?;
        Ok(NotifyResponse { id: wire::notification_id::format(id).into() })
    }

    async fn modernize(&self, asked: Asked, params: DescriptorParams) -> Result<Void, Failure> {
        let (subject, range) = self.described(params.desc).await?;
        let modernize = || {
            let context = request_context(asked.context.clone());
            subject.namespace.modernize(subject.id.clone(), &range, context, asked.context.deadline)
        };
        self.at_home(&subject, Purpose::Step, &asked, modernize).await?;
        Ok(Void)
    }

    fn namespace(&self, name: &[u8]) -> Result<(&Arc<NamespaceEngine>, NamespaceInterface), Failure> {
        let namespace = self.engine.namespace(name)?;
        let interface = self.namespaces.get(namespace.name().as_str()).ok_or(EngineError::NamespaceNotFound)?;
        Ok((namespace, *interface))
    }

    async fn described(&self, described: MachineDescriptor) -> Result<(Subject<'_>, HistoryRange), Failure> {
        // The namespace comes first, then what is wrong with the rest.
        self.namespace(&described.ns)?;
        let range = checked(described.range)?;
        Ok((self.subject(&described.ns, described.r#ref).await?, range))
    }

    async fn subject(&self, ns: &[u8], reference: Reference) -> Result<Subject<'_>, Failure> {
        let (namespace, interface) = self.namespace(ns)?;
        let id = match reference {
            // No machine can have an id that is none, so it is not found.
            Reference::Id(id) => MachineId::new(id).map_err(|_| Refusal::MachineNotFound)?,
            Reference::Tag(tag) if interface.protocol.has_tags() => namespace.tagged(&tag).await?,
            // The current generation has no such variant.
            Reference::Tag(_) => return Err(Failure::Failed(UNKNOWN_REFERENCE.into())),
        };
        about(namespace, &id);
        Ok(Subject { namespace, interface, id })
    }

    async fn execute(&self, subject: Subject<'_>, impact: Impact, asked: Asked) -> Result<Success, Failure> {
        let deadline = self.deadline(subject.interface, &asked.context);
        if self.cluster.is_none() {
            let request = Request { deadline, context: request_context(asked.context) };
            return Ok(subject.namespace.execute(subject.id, impact, request).await?);
        }
        let context = request_context(asked.context.clone());
        let execute = || {
            let request = Request { deadline, context: context.clone() };
            subject.namespace.execute(subject.id.clone(), impact.clone(), request)
        };
        self.at_home(&subject, Purpose::Step, &asked, execute).await
    }

    /// Does the work where the machine is at home: here, or it is another instance that answers.
    async fn at_home<T, F>(
        &self,
        subject: &Subject<'_>,
        purpose: Purpose,
        asked: &Asked,
        work: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let (Some(cluster), Some(original)) = (&self.cluster, &asked.original) else { return Ok(work().await?) };
        let key = subject.namespace.key(subject.id.clone());
        let deadline = self.deadline(subject.interface, &asked.context);
        loop {
            match cluster.place(&key, purpose, original, deadline).await.map_err(Failure::Failed)? {
                Place::Done(response) => return Err(Failure::Relayed(Box::new(response))),
                Place::Here => {}
            }
            match work().await {
                // It was at home here a moment ago.
                Err(EngineError::NotOwner) if self.engine.clock().now() < deadline => {}
                done => return Ok(done?),
            }
        }
    }

    fn deadline(&self, interface: NamespaceInterface, context: &Context) -> i64 {
        context.deadline.unwrap_or_else(|| self.engine.clock().now().saturating_add(interface.default_processing_ms))
    }
}

/// From here on the request's lines name the machine.
fn about(namespace: &NamespaceEngine, id: &MachineId) {
    scope::about(&Span::current(), namespace.name().as_str(), id.as_bytes());
}

const UNKNOWN_REFERENCE: wire::Error = wire::Error::Union { of: "Reference", found: "none that is known" };

fn response(success: Success) -> Result<Value, Failure> {
    match success {
        Success::Response(value) => Ok(value),
        Success::Done => Err(Failure::Failed(woody::Error::unexpected("the step has no response"))),
    }
}

/// What goes on with a step. Shared with the request's buffer: what is stored of it is copied where it is stored.
fn request_context(context: Context) -> RequestContext {
    let header = |(name, value): (HeaderName, HeaderValue)| {
        (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    };
    RequestContext {
        trace_id: context.trace_id,
        span_id: context.span_id,
        meta: context.meta,
        // What is caused by this request hangs on our own span, if there is one.
        trace: trace::depart().unwrap_or_else(|| context.trace.into_iter().map(header).collect()),
    }
}

#[async_trait]
impl Service for Automaton {
    fn name(&self) -> &'static str {
        "Automaton"
    }

    fn method(&self, name: &[u8]) -> Option<MethodKind> {
        const METHODS: [&str; 8] = [
            Start::NAME,
            Repair::NAME,
            SimpleRepair::NAME,
            Call::NAME,
            GetMachine::NAME,
            Remove::NAME,
            Modernize::NAME,
            Notify::NAME,
        ];
        METHODS.iter().any(|method| method.as_bytes() == name).then_some(MethodKind::Call)
    }

    async fn handle(&self, request: woody::Request) -> Result<Reply, woody::Error> {
        let woody::Request { context, name, args: reader, seqid, original } = request;
        // Dropped at once where nobody will ask for it.
        let asked = Asked { context, original: self.cluster.is_some().then_some(original) };
        match std::str::from_utf8(&name).unwrap_or_default() {
            Call::NAME => reply::<Call>(seqid, self.call(asked, args::<Call>(reader)?).await),
            Start::NAME => reply::<Start>(seqid, self.start(asked, args::<Start>(reader)?).await),
            GetMachine::NAME => reply::<GetMachine>(seqid, self.get_machine(asked, args::<GetMachine>(reader)?).await),
            Repair::NAME => self.repair(asked, args::<Repair>(reader)?, seqid).await,
            SimpleRepair::NAME => {
                reply::<SimpleRepair>(seqid, self.simple_repair(asked, args::<SimpleRepair>(reader)?).await)
            }
            Remove::NAME => reply::<Remove>(seqid, self.remove(asked, args::<Remove>(reader)?).await),
            Notify::NAME => reply::<Notify>(seqid, self.notify(asked, args::<Notify>(reader)?).await),
            Modernize::NAME => reply::<Modernize>(seqid, self.modernize(asked, args::<Modernize>(reader)?).await),
            _ => {
                Err(woody::Error::bad_request(format!("thrift: unknown function: {}", String::from_utf8_lossy(&name))))
            }
        }
    }
}
