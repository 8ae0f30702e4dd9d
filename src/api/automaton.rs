//! Service `Automaton`, path `/v1/automaton`.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::failure::Failure;
use crate::engine::{Engine, NamespaceEngine, Request};
use crate::machine::{Impact, MachineId, Refusal, RequestContext, Status, Success, shown_timer};
use crate::wire::{
    self, Call, DescribedParams, DescriptorParams, Exception, GetMachine, HistoryRange, Machine, MachineDescriptor,
    MachineStatus, MachineStatusFailed, MachineStatusWorking, Method, Modernize, Notify, NotifyResponse, Reader,
    Reference, Remove, RemoveParams, Repair, SimpleRepair, SimpleRepairParams, Start, StartParams, Value, Void,
};
use crate::woody::{self, Context, MethodKind, Reply, Service};

pub struct Automaton {
    engine: Arc<Engine>,
    /// Milliseconds that a request without a deadline has, by namespace.
    default_processing_ms: HashMap<String, i64>,
}

// === impl Automaton ===

impl Automaton {
    pub fn new(engine: Arc<Engine>, default_processing_ms: HashMap<String, i64>) -> Self {
        Self { engine, default_processing_ms }
    }

    async fn start(&self, context: Context, params: StartParams) -> Result<Void, Failure> {
        let namespace = self.engine.namespace(&params.ns)?;
        // Start declares no exception for an id that can't be.
        let id = MachineId::new(params.id)
            .map_err(|error| Failure::Failed(woody::Error::unexpected(format!("MachineNotFound: {error}"))))?;
        let request = self.request(namespace, context);
        namespace.execute(id, Impact::Init { args: params.a }, request).await?;
        Ok(Void)
    }

    async fn call(&self, context: Context, params: DescribedParams) -> Result<Value, Failure> {
        let (namespace, id, range) = self.described(params.desc)?;
        let request = self.request(namespace, context);
        response(namespace.execute(id, Impact::Call { args: params.a, range }, request).await?)
    }

    async fn repair(&self, context: Context, params: DescribedParams) -> Result<Value, Failure> {
        let (namespace, id, range) = self.described(params.desc)?;
        let request = self.request(namespace, context);
        response(namespace.execute(id, Impact::Repair { args: params.a, range }, request).await?)
    }

    async fn simple_repair(&self, context: Context, params: SimpleRepairParams) -> Result<Void, Failure> {
        let namespace = self.engine.namespace(&params.ns)?;
        let id = referenced(params.r#ref)?;
        let request = self.request(namespace, context);
        namespace.execute(id, Impact::SimpleRepair, request).await?;
        Ok(Void)
    }

    async fn remove(&self, context: Context, params: RemoveParams) -> Result<Void, Failure> {
        let namespace = self.engine.namespace(&params.ns)?;
        let id = machine_id(params.id)?;
        let request = self.request(namespace, context);
        namespace.execute(id, Impact::Remove, request).await?;
        Ok(Void)
    }

    async fn get_machine(&self, params: DescriptorParams) -> Result<Machine, Failure> {
        let (namespace, id, range) = self.described(params.desc)?;
        let view = namespace.get(id.clone(), &range).await?;
        let status = match &view.record.status {
            Status::Failed { reason, .. } => {
                MachineStatus::Failed(MachineStatusFailed { reason: Some(reason.clone().into()) })
            }
            Status::Working(_) | Status::Removed { .. } => MachineStatus::Working(MachineStatusWorking {}),
        };
        Ok(Machine {
            ns: Bytes::copy_from_slice(namespace.name().as_str().as_bytes()),
            id: id.as_bytes().clone(),
            history: wire::History::from_encoded(view.events),
            history_range: range,
            status: Some(status),
            aux_state: Some(view.record.aux_state.clone()),
            timer: shown_timer(&view.record),
            aux_state_legacy: None,
        })
    }

    async fn notify(&self, context: Context, params: DescribedParams) -> Result<NotifyResponse, Failure> {
        let (namespace, id, range) = self.described(params.desc)?;
        let id = namespace.notify(id, params.a.detached(), range, request_context(context).detached()).await?;
        Ok(NotifyResponse { id: wire::notification_id::format(id).into() })
    }

    /// No namespace has a modernizer.
    fn modernize(&self, params: DescriptorParams) -> Result<Void, Failure> {
        self.described(params.desc)?;
        Err(Failure::Thrown(Exception::NamespaceNotFound))
    }

    fn described(
        &self,
        described: MachineDescriptor,
    ) -> Result<(&Arc<NamespaceEngine>, MachineId, HistoryRange), Failure> {
        let namespace = self.engine.namespace(&described.ns)?;
        let id = referenced(described.r#ref)?;
        if let Some(limit) = described.range.limit.filter(|limit| *limit < 0) {
            let reason = format!("bad history range: negative limit {limit}");
            return Err(Failure::Failed(woody::Error::bad_request(reason)));
        }
        Ok((namespace, id, described.range))
    }

    fn request(&self, namespace: &NamespaceEngine, context: Context) -> Request {
        let deadline = context.deadline.unwrap_or_else(|| {
            let default = self.default_processing_ms.get(namespace.name().as_str()).copied().unwrap_or(0);
            self.engine.clock().now().saturating_add(default)
        });
        Request { context: request_context(context), deadline }
    }
}

fn referenced(reference: Reference) -> Result<MachineId, Failure> {
    match reference {
        Reference::Id(id) => machine_id(id),
        // The current generation has no such variant.
        Reference::Tag(_) => Err(Failure::Failed(woody::Error::bad_request(
            "thrift decode error: Reference: a union holds exactly one field, this one holds none that is known",
        ))),
    }
}

/// No machine can have such an id, so it is not found.
fn machine_id(id: Bytes) -> Result<MachineId, Failure> {
    MachineId::new(id).map_err(|_| Refusal::MachineNotFound.into())
}

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
        trace: context.trace.into_iter().map(header).collect(),
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        crate::engine::EngineError::from(refusal).into()
    }
}

/// A whole reply; an exception that the method does not declare is a failure of the call.
fn reply<M: Method>(seqid: i32, result: Result<M::Success, Failure>) -> Result<Reply, woody::Error> {
    let result = match result {
        Ok(success) => Ok(success),
        Err(Failure::Thrown(exception)) => Err(exception),
        Err(Failure::Failed(error)) => return Err(error),
    };
    let business = result.as_ref().err().map(Exception::name);
    let body = wire::write_reply::<M>(seqid, &result).map_err(|error| woody::Error::unexpected(error.to_string()))?;
    Ok(Reply { body, business })
}

fn args<M: Method>(mut reader: Reader) -> Result<M::Args, woody::Error> {
    Ok(wire::read_args::<M>(&mut reader)?)
}

#[async_trait]
impl Service for Automaton {
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

    async fn handle(&self, context: Context, name: Bytes, reader: Reader, seqid: i32) -> Result<Reply, woody::Error> {
        match std::str::from_utf8(&name).unwrap_or_default() {
            Call::NAME => reply::<Call>(seqid, self.call(context, args::<Call>(reader)?).await),
            Start::NAME => reply::<Start>(seqid, self.start(context, args::<Start>(reader)?).await),
            GetMachine::NAME => reply::<GetMachine>(seqid, self.get_machine(args::<GetMachine>(reader)?).await),
            Repair::NAME => reply::<Repair>(seqid, self.repair(context, args::<Repair>(reader)?).await),
            SimpleRepair::NAME => {
                reply::<SimpleRepair>(seqid, self.simple_repair(context, args::<SimpleRepair>(reader)?).await)
            }
            Remove::NAME => reply::<Remove>(seqid, self.remove(context, args::<Remove>(reader)?).await),
            Notify::NAME => reply::<Notify>(seqid, self.notify(context, args::<Notify>(reader)?).await),
            Modernize::NAME => reply::<Modernize>(seqid, self.modernize(args::<Modernize>(reader)?)),
            _ => {
                Err(woody::Error::bad_request(format!("thrift: unknown function: {}", String::from_utf8_lossy(&name))))
            }
        }
    }
}
