//! Processors by step: a namespace may have one of its own for each kind of question.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Ask, Processor, Question};
use crate::machine::Outcome;

/// Absent ones are stood in for by `all`.
pub struct ByStep {
    pub all: Arc<dyn Processor>,
    pub init: Option<Arc<dyn Processor>>,
    pub call: Option<Arc<dyn Processor>>,
    pub repair: Option<Arc<dyn Processor>>,
    pub timeout: Option<Arc<dyn Processor>>,
    pub notification: Option<Arc<dyn Processor>>,
}

#[async_trait]
impl Processor for ByStep {
    async fn ask(&self, question: Question) -> Outcome {
        let own = match &question.ask {
            Ask::Init(_) => &self.init,
            Ask::Call(_) => &self.call,
            Ask::Repair(_) => &self.repair,
            Ask::Timeout => &self.timeout,
            Ask::Notification(_) => &self.notification,
        };
        own.as_ref().unwrap_or(&self.all).ask(question).await
    }
}
