//! Names: namespaces, machine ids, commit ids.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A configured namespace's name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

/// A machine's id: 1 to 1024 bytes of anything.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(Bytes);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MachineKey {
    pub ns: Namespace,
    pub id: MachineId,
}

/// A commit's random 128-bit id: the version of the record that it wrote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(pub [u8; 16]);

/// The commit id of a machine's Start: tells a machine from an earlier one of the same id.
pub type Epoch = CommitId;

/// No machine can have such an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a machine id is empty")]
    Empty,
    #[error("a machine id has {0} bytes, {max} are the most", max = MachineId::LONGEST)]
    TooLong(usize),
}

// === impl Namespace ===

impl Namespace {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

// === impl MachineId ===

impl MachineId {
    pub const LONGEST: usize = 1024;

    pub fn new(bytes: Bytes) -> Result<Self, KeyError> {
        match bytes.len() {
            0 => Err(KeyError::Empty),
            length if length > Self::LONGEST => Err(KeyError::TooLong(length)),
            _ => Ok(Self(bytes)),
        }
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Readable in logs: bytes that are not UTF-8 are replaced.
impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

// === impl MachineKey ===

impl MachineKey {
    /// The key in memory of its own, so that what is kept for long does not hold a request alive.
    pub fn detached(&self) -> Self {
        Self { ns: self.ns.clone(), id: MachineId(Bytes::copy_from_slice(&self.id.0)) }
    }
}

// === impl CommitId ===

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
