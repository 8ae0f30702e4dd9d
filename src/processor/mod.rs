//! The client's service that decides what a machine does next.

mod by_step;
mod modernizer;
mod woody;

use async_trait::async_trait;

use crate::machine::{Outcome, RequestContext};
use crate::wire::{Machine, Value};

pub use by_step::ByStep;
pub use modernizer::{Modernizer, ModernizerError, WoodyModernizer};
pub use woody::WoodyProcessor;

/// One question to a processor.
#[derive(Clone, Debug)]
pub struct Question {
    pub ask: Ask,
    pub machine: Machine,
    /// The call is made in this context.
    pub context: RequestContext,
    /// Unix milliseconds.
    pub deadline: i64,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    Init(Value),
    Call(Value),
    Repair(Value),
    Timeout,
    Notification(Value),
}

#[async_trait]
pub trait Processor: Send + Sync + 'static {
    /// Never fails: whatever goes wrong is an outcome.
    async fn ask(&self, question: Question) -> Outcome;
}
