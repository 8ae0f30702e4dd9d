//! The client's service that brings old events to the present format.

use async_trait::async_trait;
use http::Uri;

use super::woody::woody_context;
use crate::machine::RequestContext;
use crate::wire::{self, Content, Limits, MachineEvent, ModernizeEvent, ModernizeEventParams};
use crate::woody;

/// Bytes of a call beside its event.
const MESSAGE_OVERHEAD: usize = 256;

#[async_trait]
pub trait Modernizer: Send + Sync + 'static {
    /// The event in its present format. `deadline` (unix milliseconds) is the request's own, if it has one.
    async fn modernize(
        &self,
        event: MachineEvent,
        context: &RequestContext,
        deadline: Option<i64>,
    ) -> Result<Content, ModernizerError>;
}

/// Names what went wrong. Final: nothing was stored, and the caller may ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the modernizer failed: {0}")]
pub struct ModernizerError(pub String);

/// A modernizer behind a woody URL.
pub struct WoodyModernizer {
    client: woody::Client,
    url: Uri,
    limits: Limits,
}

// === impl WoodyModernizer ===

impl WoodyModernizer {
    pub fn new(client: woody::Client, url: Uri, limits: Limits) -> Self {
        Self { client, url, limits }
    }
}

#[async_trait]
impl Modernizer for WoodyModernizer {
    async fn modernize(
        &self,
        event: MachineEvent,
        context: &RequestContext,
        deadline: Option<i64>,
    ) -> Result<Content, ModernizerError> {
        let failed = |reason: &dyn std::fmt::Display| ModernizerError(reason.to_string());
        let context = woody_context(context.clone()).map_err(|trouble| failed(&trouble))?;
        let size = MESSAGE_OVERHEAD + event.event.data.as_bytes().len();
        let message = wire::write_call::<ModernizeEvent>(&ModernizeEventParams { ev: event }, size);
        let called = self.client.call(&self.url, &context, deadline, message).await;
        let reply = called.map_err(|error| failed(&error))?;
        match wire::read_reply::<ModernizeEvent>(reply, self.limits) {
            Ok(Ok(result)) => Ok(result.event_payload),
            Ok(Err(exception)) => Err(failed(&exception.name())),
            Err(error) => Err(failed(&error)),
        }
    }
}
