//! The demo's client: what any client of the service does, through the port.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;

use super::NAMESPACE;
use super::payment::texts;
use crate::clock::{Clock, Snowflakes};
use crate::wire::{
    self, Call, DescribedParams, DescriptorParams, Exception, GetMachine, HistoryRange, Limits, Machine,
    MachineDescriptor, Method, Notify, Reference, Remove, RemoveParams, Repair, Start, StartParams, value_text,
};
use crate::woody::{self, Client, ClientSettings, Context};

/// How long one call may take, in milliseconds.
const PATIENCE_MS: i64 = 10_000;

/// Calls the Automaton of the demo's namespace.
pub(super) struct Caller {
    client: Client,
    url: Uri,
    ids: Arc<Snowflakes>,
    clock: Clock,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// What the interface declares: part of the game.
    #[error("{}", thrown(.0))]
    Thrown(Exception),
    #[error("{0}")]
    Failed(#[from] woody::Error),
    #[error("the answer can't be read: {0}")]
    Malformed(#[from] wire::Error),
}

// === impl Caller ===

impl Caller {
    /// `None` for an address that is no url, which no socket has.
    pub(super) fn new(address: SocketAddr, clock: Clock) -> Option<Self> {
        let url = format!("http://{address}/v1/automaton").parse().ok()?;
        let ids = Snowflakes::new(0, clock.clone());
        let client = Client::new(ClientSettings::default(), clock.clone(), ids.clone());
        Some(Self { client, url, ids, clock })
    }

    pub(super) async fn start(&self, id: &str, amount: &str) -> Result<(), CallError> {
        let params = StartParams { ns: NAMESPACE.into(), id: bytes(id), a: texts(&[("amount", amount)]) };
        self.call::<Start>(&params).await.map(drop)
    }

    /// Returns the processor's response, as text.
    pub(super) async fn command(&self, id: &str, command: &str) -> Result<String, CallError> {
        let params = DescribedParams { desc: described(id), a: texts(&[("command", command)]) };
        Ok(value_text(&self.call::<Call>(&params).await?)?)
    }

    /// As [`Self::command`].
    pub(super) async fn repair(&self, id: &str, note: &str) -> Result<String, CallError> {
        let params = DescribedParams { desc: described(id), a: texts(&[("note", note)]) };
        Ok(value_text(&self.call::<Repair>(&params).await?)?)
    }

    /// Returns the notification's id. It is delivered later.
    pub(super) async fn notify(&self, id: &str, text: &str) -> Result<String, CallError> {
        let params = DescribedParams { desc: described(id), a: texts(&[("text", text)]) };
        let response = self.call::<Notify>(&params).await?;
        Ok(String::from_utf8_lossy(&response.id).into_owned())
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), CallError> {
        let params = RemoveParams { ns: NAMESPACE.into(), id: bytes(id) };
        self.call::<Remove>(&params).await.map(drop)
    }

    /// The machine with the events behind `after`; none if there is no such machine.
    pub(super) async fn machine(&self, id: &str, after: i64) -> Result<Option<Machine>, CallError> {
        let range = HistoryRange { after: Some(after), ..HistoryRange::ALL };
        let params = DescriptorParams { desc: MachineDescriptor { range, ..described(id) } };
        match self.call::<GetMachine>(&params).await {
            Ok(machine) => Ok(Some(machine)),
            Err(CallError::Thrown(Exception::MachineNotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call<M: Method>(&self, args: &M::Args) -> Result<M::Success, CallError> {
        let deadline = self.clock.now() + PATIENCE_MS;
        let message = wire::write_call::<M>(args, 0);
        let reply = self.client.call(&self.url, &Context::root(&self.ids), deadline, message).await?;
        wire::read_reply::<M>(reply, Limits::default())?.map_err(CallError::Thrown)
    }
}

fn described(id: &str) -> MachineDescriptor {
    MachineDescriptor { ns: NAMESPACE.into(), r#ref: Reference::Id(bytes(id)), range: HistoryRange::ALL }
}

fn bytes(id: &str) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn thrown(exception: &Exception) -> &'static str {
    exception.name()
}
