//! The Thrift services: types of the wire to engine calls, errors to exceptions and statuses.

mod automaton;
mod event_sink;
mod failure;

use failure::Failure;

use crate::failpoint::{self, Failpoint};
use crate::wire::{self, Exception, HistoryRange, Method, Reader};
use crate::woody::{self, Reply};

pub use automaton::{Automaton, NamespaceInterface};
pub use event_sink::EventSink;

/// What the original calls it in its log.
const REQUEST_FAILED: &str = "woody_request_handle_error";

/// A whole reply; an exception that the method does not declare is a failure of the call.
fn reply<M: Method>(seqid: i32, result: Result<M::Success, Failure>) -> Result<Reply, woody::Error> {
    let result = match result {
        Ok(success) => Ok(success),
        Err(Failure::Thrown(exception)) => {
            tracing::info!(
                mg_pulse_event_id = REQUEST_FAILED,
                error.class = "throw",
                error.reason = exception.name(),
                "request handling failed"
            );
            Err(exception)
        }
        Err(Failure::Failed(error)) => {
            tracing::warn!(
                mg_pulse_event_id = REQUEST_FAILED,
                error.class = "throw",
                error.reason = %error,
                "request handling failed"
            );
            return Err(error);
        }
        Err(Failure::Relayed(response)) => return Ok(Reply::Relayed(*response)),
    };
    let business = result.as_ref().err().map(Exception::name);
    let body = wire::write_reply::<M>(seqid, &result).map_err(|error| woody::Error::unexpected(error.to_string()))?;
    failpoint::reached(Failpoint::AnswerEncoded);
    Ok(Reply::Result { body, business })
}

fn args<M: Method>(mut reader: Reader) -> Result<M::Args, woody::Error> {
    let args = wire::read_args::<M>(&mut reader)?;
    failpoint::reached(Failpoint::RequestDecoded);
    Ok(args)
}

/// A range that can be worked off: refused before anything is called.
fn checked(range: HistoryRange) -> Result<HistoryRange, Failure> {
    match range.limit {
        Some(limit) if limit < 0 => {
            Err(Failure::Failed(woody::Error::bad_request(format!("bad history range: negative limit {limit}"))))
        }
        _ => Ok(range),
    }
}
