//! What callers see of an engine error: the one place that says so.

use bytes::Bytes;
use http::Response;

use crate::engine::EngineError;
use crate::machine::Refusal;
use crate::storage::StorageError;
use crate::wire::Exception;
use crate::woody;

/// Why there is no result of this instance's own.
#[derive(Debug)]
pub(super) enum Failure {
    /// A declared exception.
    Thrown(Exception),
    /// The call itself failed.
    Failed(woody::Error),
    /// Another instance has answered.
    Relayed(Box<Response<Bytes>>),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::NamespaceNotFound => Self::Thrown(Exception::NamespaceNotFound),
            EngineError::Refused(refusal) => match refusal {
                Refusal::MachineNotFound => Self::Thrown(Exception::MachineNotFound),
                Refusal::MachineAlreadyExists => Self::Thrown(Exception::MachineAlreadyExists),
                Refusal::MachineFailed => Self::Thrown(Exception::MachineFailed),
                Refusal::MachineAlreadyWorking => Self::Thrown(Exception::MachineAlreadyWorking),
                Refusal::RepairFailed(reason) => Self::Thrown(Exception::RepairFailed(reason)),
                Refusal::Unavailable(_) => Self::Failed(woody::Error::unavailable(text)),
            },
            EngineError::Overload(_)
            | EngineError::DeadlineReached
            | EngineError::Stopping
            | EngineError::NotOwner
            | EngineError::Sink(_)
            | EngineError::Storage(StorageError::Unavailable(_)) => Self::Failed(woody::Error::unavailable(text)),
            EngineError::Storage(StorageError::Corrupt(_)) | EngineError::Modernizer(_) => {
                Self::Failed(woody::Error::unexpected(text))
            }
            EngineError::TimedOut | EngineError::Killed => Self::Failed(woody::Error::unknown(text)),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        EngineError::from(refusal).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Bound;
    use crate::processor::ModernizerError;
    use crate::sink::SinkError;
    use crate::wire::Value;

    #[test]
    fn each_engine_error_has_its_exception_or_status() {
        let reason = Value::str("why");
        let thrown = [
            (EngineError::NamespaceNotFound, Exception::NamespaceNotFound),
            (Refusal::MachineNotFound.into(), Exception::MachineNotFound),
            (Refusal::MachineAlreadyExists.into(), Exception::MachineAlreadyExists),
            (Refusal::MachineFailed.into(), Exception::MachineFailed),
            (Refusal::MachineAlreadyWorking.into(), Exception::MachineAlreadyWorking),
            (Refusal::RepairFailed(reason.clone()).into(), Exception::RepairFailed(reason)),
        ];
        for (error, exception) in thrown {
            match Failure::from(error) {
                Failure::Thrown(thrown) => assert_eq!(thrown, exception),
                other => panic!("{exception:?}: {other:?}"),
            }
        }
        let failed = [
            (Refusal::Unavailable("processor_unavailable".into()).into(), 503),
            (EngineError::Overload(Bound::MachineQueue), 503),
            (EngineError::Overload(Bound::Loading), 503),
            (EngineError::Overload(Bound::StepsInFlight), 503),
            (EngineError::Overload(Bound::Memory), 503),
            (EngineError::Overload(Bound::Bodies), 503),
            (EngineError::DeadlineReached, 503),
            (EngineError::Stopping, 503),
            (EngineError::NotOwner, 503),
            (StorageError::Unavailable("down".into()).into(), 503),
            (StorageError::Corrupt("gap".into()).into(), 500),
            (ModernizerError("a lower version".into()).into(), 500),
            (EngineError::Overload(Bound::Outbox), 503),
            (SinkError::Unavailable("down".into()).into(), 503),
            (SinkError::Misconfigured("no topic".into()).into(), 503),
            (EngineError::TimedOut, 504),
            (EngineError::Killed, 504),
        ];
        for (error, status) in failed {
            let text = error.to_string();
            match Failure::from(error) {
                Failure::Failed(error) => assert_eq!((error.status().as_u16(), error.details), (status, text)),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
