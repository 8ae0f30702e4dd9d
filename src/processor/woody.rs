//! Processors behind a woody URL.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};

use super::{Ask, Processor, Question};
use crate::machine::{Action, Change, Outcome, RequestContext, TimerChange};
use crate::wire::{
    self, CallArgs, ComplexAction, Content, Exception, HistoryRange, InitSignal, Limits, MachineStateChange,
    NotificationSignal, ProcessCall, ProcessCallParams, ProcessRepair, ProcessRepairParams, ProcessSignal,
    ProcessSignalParams, Protocol, RepairArgs, SetTimerAction, Signal, SignalArgs, SignalResult, TimeoutSignal,
    TimerAction, timestamp,
};
use crate::woody::{self, Class, Context};

/// Seconds that a timer's signal may take where the processor does not say.
const DEFAULT_TIMER_TIMEOUT: i32 = 30;

/// Bytes of a call beside its machine's history and aux state, roughly.
const MESSAGE_OVERHEAD: usize = 1_024;

pub struct WoodyProcessor {
    client: woody::Client,
    url: Uri,
    protocol: Protocol,
    limits: Limits,
}

/// A call that came back without a result: what it means for the machine.
pub(super) enum Trouble {
    HeldBack(String),
    Transient(String),
    Unexpected(String),
}

// === impl WoodyProcessor ===

impl WoodyProcessor {
    pub fn new(client: woody::Client, url: Uri, protocol: Protocol, limits: Limits) -> Self {
        Self { client, url, protocol, limits }
    }

    async fn call<M: wire::Method>(
        &self,
        context: &Context,
        deadline: i64,
        message: Bytes,
    ) -> Result<Result<M::Success, Exception>, Trouble> {
        let reply = self.client.call(&self.url, context, Some(deadline), message).await?;
        wire::read_reply::<M>(reply, self.limits)
            .map_err(|error| Trouble::Unexpected(format!("the processor's answer is malformed: {error}")))
    }
}

#[async_trait]
impl Processor for WoodyProcessor {
    async fn ask(&self, question: Question) -> Outcome {
        let Question { ask, mut machine, context, deadline } = question;
        if self.protocol == Protocol::Damsel {
            machine.aux_state_legacy = machine.aux_state.as_ref().map(|aux| aux.data.clone());
        }
        let context = match woody_context(context) {
            Ok(context) => context,
            Err(trouble) => return trouble.into(),
        };
        let aux = machine.aux_state.as_ref().map_or(0, |aux| aux.data.as_bytes().len());
        let size = MESSAGE_OVERHEAD + machine.history.size() + aux;
        let result = match ask {
            Ask::Call(arg) => {
                let size = size + arg.as_bytes().len();
                let params = ProcessCallParams { a: CallArgs { arg, machine } };
                let message = wire::write_call::<ProcessCall>(&params, size);
                self.call::<ProcessCall>(&context, deadline, message)
                    .await
                    .map(|result| result.map(|it| (Some(it.response), it.change, it.action)))
            }
            Ask::Repair(arg) if self.protocol != Protocol::Damsel => {
                let size = size + arg.as_bytes().len();
                let params = ProcessRepairParams { a: RepairArgs { arg, machine } };
                let message = wire::write_call::<ProcessRepair>(&params, size);
                self.call::<ProcessRepair>(&context, deadline, message)
                    .await
                    .map(|result| result.map(|it| (Some(it.response), it.change, it.action)))
            }
            Ask::Init(_) | Ask::Timeout | Ask::Notification(_) | Ask::Repair(_) => {
                let signal = match ask {
                    Ask::Init(arg) => Signal::Init(InitSignal { arg }),
                    // The first generation's repair is a signal of the same number and shape.
                    Ask::Notification(arg) | Ask::Repair(arg) => Signal::Notification(NotificationSignal { arg }),
                    _ => Signal::Timeout(TimeoutSignal {}),
                };
                let params = ProcessSignalParams { a: SignalArgs { signal, machine } };
                let message = wire::write_call::<ProcessSignal>(&params, size);
                self.call::<ProcessSignal>(&context, deadline, message)
                    .await
                    .map(|result| result.map(|SignalResult { change, action }| (None, change, action)))
            }
        };
        match result {
            Ok(Ok((response, change, action))) => match read_change(change, action, self.protocol) {
                Ok(change) => Outcome::Done { response, change },
                Err(reason) => Outcome::Unexpected(reason),
            },
            Ok(Err(Exception::RepairFailed(reason))) => Outcome::RepairFailed(reason),
            Ok(Err(exception)) => Outcome::Unexpected(format!("the processor threw {}", exception.name())),
            Err(trouble) => trouble.into(),
        }
    }
}

impl From<woody::Error> for Trouble {
    fn from(error: woody::Error) -> Self {
        if error.is_pool_full() {
            return Self::HeldBack(format!("processor.pool_size is reached: {error}"));
        }
        if error.is_own_bound() {
            return Self::HeldBack(error.details);
        }
        match error.class {
            Class::ResourceUnavailable | Class::ResultUnknown => {
                Self::Transient(format!("processor_unavailable: {error}"))
            }
            Class::ResultUnexpected => Self::Unexpected(format!("the processor failed: {error}")),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::HeldBack(reason) | Self::Transient(reason) | Self::Unexpected(reason)) = self;
        f.write_str(reason)
    }
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::HeldBack(reason) => Self::HeldBack(reason),
            Trouble::Transient(reason) => Self::Transient(reason),
            Trouble::Unexpected(reason) => Self::Unexpected(reason),
        }
    }
}

pub(super) fn woody_context(context: RequestContext) -> Result<Context, Trouble> {
    let header = |(name, value): (Bytes, Bytes)| {
        let name = HeaderName::from_bytes(&name).ok()?;
        Some((name, HeaderValue::from_maybe_shared(value).ok()?))
    };
    let trace: Option<Vec<_>> = context.trace.into_iter().map(header).collect();
    // Stored from headers that were read, so they are headers.
    let trace = trace.ok_or_else(|| Trouble::Unexpected("the stored trace context is malformed".to_owned()))?;
    Ok(Context {
        trace_id: context.trace_id,
        span_id: context.span_id,
        parent_id: Bytes::new(),
        deadline: None,
        meta: context.meta,
        trace,
    })
}

/// The processor's change, whichever generation's fields it came in; an error names what was wrong with it.
fn read_change(change: MachineStateChange, action: ComplexAction, protocol: Protocol) -> Result<Change, String> {
    let plain = |data| Content { format_version: None, data };
    let aux_state = change.aux_state.or(change.aux_state_legacy.map(plain));
    let events = match (change.events, change.events_legacy) {
        (Some(events), _) => events,
        (None, Some(events)) => events.into_iter().map(plain).collect(),
        (None, None) => Vec::new(),
    };
    // The deprecated action, and tags, went with the second generation.
    let deprecated = action.set_timer.filter(|_| protocol != Protocol::Current).map(TimerAction::Set);
    let tag = action.tag.filter(|_| protocol.has_tags()).map(|tag| tag.tag);
    let timer = match action.timer.or(deprecated) {
        None => None,
        Some(TimerAction::Unset(_)) => Some(TimerChange::Unset),
        Some(TimerAction::Set(set)) => Some(read_timer(set)?),
    };
    Ok(Change { aux_state, events, action: Action { timer, tag, remove: action.remove.is_some() } })
}

fn read_timer(set: SetTimerAction) -> Result<TimerChange, String> {
    let range = set.range.unwrap_or(HistoryRange::ALL);
    let timeout = set.timeout.unwrap_or(DEFAULT_TIMER_TIMEOUT);
    match set.timer {
        wire::Timer::Timeout(seconds) => Ok(TimerChange::In { seconds, range, timeout }),
        wire::Timer::Deadline(text) => {
            let nanos = timestamp::parse_nanos(&text).map_err(|error| {
                format!("the timer's deadline is no UTC time: {error}: {}", String::from_utf8_lossy(&text))
            })?;
            // Never early: a fraction of a millisecond counts as a whole one. Four-digit years always fit.
            let due = (nanos + 999_999).div_euclid(1_000_000) as i64;
            Ok(TimerChange::At { due, range, timeout })
        }
    }
}
