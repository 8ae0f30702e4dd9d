//! Paging through machines: for operators, and for counting them.

use bytes::Bytes;

use crate::machine::{MachineKey, Namespace, Shard, StatusKind};

/// Which machines are asked for, tombstones included: those are [`StatusKind::Removed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// None: of every namespace.
    pub ns: Option<Namespace>,
    /// None: in every status.
    pub status: Option<StatusKind>,
    /// None: of every shard. A storage without leases is one shard, number 0.
    pub shards: Option<Vec<Shard>>,
}

/// A machine as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: MachineKey,
    pub status: StatusKind,
}

/// Some of what was asked for. A page may hold less than its limit, even nothing, and not be the last: looking for the
/// next machine of a rare status is bounded too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachinePage {
    pub machines: Vec<Listed>,
    /// Where to go on, opaque. None: this was the last page.
    pub next: Option<Bytes>,
}
