//! Which of Kafka's errors pass by themselves, and which wait for somebody's hand.

use rdkafka::types::RDKafkaErrorCode;

use crate::sink::SinkError;

/// What the client says of the error that it met. No message is in it, nor any id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
}

// === impl Trouble ===

impl Trouble {
    pub(super) fn new(code: RDKafkaErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Whether only somebody's mending helps.
    pub(super) fn lasts(&self) -> bool {
        !passes(self.code)
    }
}

impl From<Trouble> for SinkError {
    fn from(trouble: Trouble) -> Self {
        match passes(trouble.code) {
            true => Self::Unavailable(trouble.text),
            false => Self::Misconfigured(trouble.text),
        }
    }
}

/// The original's transient errors, and what this client has of its own that is like them. All others are the original's
/// misconfigurations, and those for which it failed the machine: here the step is committed, so they are tried again.
fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        // No broker that could be asked, or none that answered.
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::SSL
            | Code::MessageTimedOut
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::Retry
            | Code::BrokerDestroy
            // The message's own way through the client.
            | Code::QueueFull
            | Code::PurgeQueue
            | Code::PurgeInflight
            // Another message of the same batch was to blame.
            | Code::InvalidDifferentRecord
            // The topic, or the partition's leader, may be there in a moment.
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NotController
            | Code::StaleControllerEpoch
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::ReassignmentInProgress
            | Code::ISRInsufficient
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::KafkaStorageError
            | Code::InvalidRequiredAcks
            // It was damaged on the way.
            | Code::InvalidMessage
            | Code::BadMessage
            // A producer that lost count: the next one begins anew.
            | Code::OutOfOrderSequenceNumber
            | Code::DuplicateSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::ProducerFenced
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::ThrottlingQuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_of_the_classes_that_they_were_of() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::RequestTimedOut,
            Code::BrokerTransportFailure,
            Code::Resolve,
            Code::SSL,
            Code::InvalidMessage,
            Code::UnknownTopicOrPartition,
            Code::LeaderNotAvailable,
            Code::NotLeaderForPartition,
            Code::BrokerNotAvailable,
            Code::ReplicaNotAvailable,
            Code::StaleControllerEpoch,
            Code::NetworkException,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::InvalidRequiredAcks,
            Code::ReassignmentInProgress,
        ] {
            assert_eq!(SinkError::from(Trouble::new(code, "t")), SinkError::Unavailable("t".into()), "{code:?}");
        }
        for code in [
            // The original's misconfigurations.
            Code::MessageSizeTooLarge,
            Code::MessageBatchTooLarge,
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::UnsupportedSASLMechanism,
            Code::UnsupportedVersion,
            // It failed the machine for these.
            Code::Unknown,
            Code::InvalidTopic,
            Code::InvalidTimestamp,
            Code::IllegalSASLState,
            Code::PolicyViolation,
            // A login that is refused. The original took it for a connection that failed.
            Code::Authentication,
            Code::SaslAuthenticationFailed,
        ] {
            assert_eq!(SinkError::from(Trouble::new(code, "t")), SinkError::Misconfigured("t".into()), "{code:?}");
        }
    }
}
