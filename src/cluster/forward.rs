//! Where a request is worked off: here, or by the shard's owner, to whom it goes once, as it came.
//!
//! Policy. Who was sent a request by another instance serves it or refuses it, and passes it on to nobody. What was surely
//! not sent, or was refused as not the owner's, waits for the shard's next owner within its deadline. What was sent and
//! not answered is unknown; only a read, which changes nothing, is done again here, from storage.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};

use super::Cluster;
use super::view::{Theirs, Whose};
use crate::machine::{MachineKey, Shard};
use crate::telemetry::Forwarded;
use crate::woody::{Class, Error, Original, Reply};

/// On a request: the instance that passed it on.
pub static FORWARDED: HeaderName = HeaderName::from_static("x-machinegun-forwarded");
/// On a refusal: nothing was done, since the machine's shard is another's. Its value is the instance that says so.
pub static NOT_OWNER: HeaderName = HeaderName::from_static("x-machinegun-not-owner");

/// Milliseconds until an owner that could not be reached is tried again; twice as many each time.
const FIRST_PAUSE_MS: i64 = 100;
const LONGEST_PAUSE_MS: i64 = 1_000;

/// What a request wants of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It may change something.
    Step,
    /// It changes nothing, and any instance can do it with storage alone.
    Read,
}

/// Where a request is worked off.
#[derive(Debug)]
pub enum Place {
    Here,
    /// Elsewhere, and this is the answer.
    Done(Response<Bytes>),
}

/// What came of asking another instance.
enum Asked {
    Answered(Response<Bytes>),
    /// Nothing was done.
    Not,
    /// Nothing was sent, for a bound of our own.
    Bound(Error),
    Lost(Error),
}

// === impl Cluster: forwarding ===

impl Cluster {
    /// Where a request for this machine is worked off; it is waited for until `deadline` (unix milliseconds).
    pub async fn place(
        &self,
        key: &MachineKey,
        purpose: Purpose,
        original: &Original,
        deadline: i64,
    ) -> Result<Place, Error> {
        let shard = self.shards.of(key);
        if self.shards.tenure(shard).is_some() {
            return Ok(Place::Here);
        }
        match original.headers.contains_key(&FORWARDED) {
            true => self.place_forwarded(shard, purpose, deadline).await,
            false => self.place_own(shard, purpose, original, deadline).await,
        }
    }

    /// Sent by another instance, to which this one is the owner. It may be so by now.
    async fn place_forwarded(&self, shard: Shard, purpose: Purpose, deadline: i64) -> Result<Place, Error> {
        if purpose == Purpose::Read {
            return Ok(Place::Here);
        }
        let _ = self.clock.timeout_at(deadline, self.refresh()).await;
        if self.shards.tenure(shard).is_some() {
            return Ok(Place::Here);
        }
        let mut response = Reply::refused(Error::unavailable("not the owner of the machine's shard"));
        response.headers_mut().insert(NOT_OWNER.clone(), self.own_mark());
        Ok(Place::Done(response))
    }

    async fn place_own(
        &self,
        shard: Shard,
        purpose: Purpose,
        original: &Original,
        deadline: i64,
    ) -> Result<Place, Error> {
        let mut tried: Option<Theirs> = None;
        let mut pause = FIRST_PAUSE_MS;
        loop {
            // Before anything is looked at, so that no change is missed.
            let mut changes = self.view.changes();
            if self.shards.tenure(shard).is_some() {
                return Ok(Place::Here);
            }
            if let Some(theirs) = self.untried(shard, tried.as_ref()) {
                match self.ask(&theirs, original, deadline).await {
                    Asked::Answered(response) => return Ok(Place::Done(response)),
                    Asked::Bound(error) => return Err(error),
                    Asked::Lost(_) if purpose == Purpose::Read => {}
                    Asked::Lost(error) => return Err(error),
                    Asked::Not => {}
                }
                tried = Some(theirs);
            }
            if purpose == Purpose::Read {
                return Ok(Place::Here);
            }
            if self.is_cut_off() {
                return Err(Error::unavailable(
                    "the owner of the machine's shard is unknown while storage is unavailable",
                ));
            }
            let waited = self.clock.timeout_at(deadline, async {
                self.refresh().await;
                let again = self.clock.now().saturating_add(pause);
                let next = async {
                    let is_known =
                        || self.shards.tenure(shard).is_some() || self.untried(shard, tried.as_ref()).is_some();
                    while !is_known() && !self.is_cut_off() {
                        // The sender lives as long as this.
                        let _ = changes.changed().await;
                    }
                };
                self.clock.timeout_at(again, next).await
            });
            match waited.await {
                Ok(Ok(())) => pause = FIRST_PAUSE_MS,
                // The same one once more: nothing was sent to it, or it did nothing.
                Ok(Err(_)) => {
                    tried = None;
                    pause = (pause * 2).min(LONGEST_PAUSE_MS);
                }
                Err(_) => {
                    self.metrics.forwarded(Forwarded::NoOwner);
                    return Err(Error::unavailable("no owner of the machine's shard could be reached in time"));
                }
            }
        }
    }

    /// Another instance that owns the shard, and is not the one that was tried.
    fn untried(&self, shard: Shard, tried: Option<&Theirs>) -> Option<Theirs> {
        match self.view.whose(shard) {
            // An instance that was here before, at the same address, is here no more.
            Whose::Theirs(theirs) if theirs.address != self.address && tried != Some(&theirs) => Some(theirs),
            Whose::Theirs(_) | Whose::Mine | Whose::Nobodys => None,
        }
    }

    async fn ask(&self, theirs: &Theirs, original: &Original, deadline: i64) -> Asked {
        let mark = (FORWARDED.clone(), self.own_mark());
        let (outcome, asked) = match self.client.relay(&theirs.address, original, mark, deadline).await {
            Ok(response) if response.headers().contains_key(&NOT_OWNER) => (Forwarded::NotOwner, Asked::Not),
            Ok(response) => (Forwarded::Answered, Asked::Answered(response)),
            Err(error) if error.is_pool_full() => {
                let details = format!("overload: storage.peer_pool_size is reached: {}", error.details);
                (Forwarded::Bound, Asked::Bound(Error::unavailable(details)))
            }
            Err(error) if error.class == Class::ResourceUnavailable => (Forwarded::Unreachable, Asked::Not),
            Err(error) => {
                let details = format!("the owner of the machine's shard did not answer: {}", error.details);
                (Forwarded::Lost, Asked::Lost(Error::unknown(details)))
            }
        };
        self.metrics.forwarded(outcome);
        asked
    }

    /// Reads the owners anew, together with all who want that now.
    pub(super) async fn refresh(&self) {
        let mut answered = self.answered.subscribe();
        let mut ticket = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            ticket = *asked;
        });
        tokio::select! {
            // The sender lives as long as this.
            _ = answered.wait_for(|answered| *answered >= ticket) => {}
            // Who has left looks no more: what it knew last stands.
            () = self.left.cancelled() => {}
        }
    }

    /// Whether this instance's leases have run out because it can't reach the storage.
    fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire) && !self.shards.is_trusted()
    }

    fn own_mark(&self) -> HeaderValue {
        // Hexadecimal digits.
        HeaderValue::from_str(&self.view.me().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
    }
}
