//! Shards: which part of all machines one is in.

use super::key::MachineKey;

/// The unit that an instance owns.
pub type Shard = u16;

// === impl MachineKey ===

impl MachineKey {
    /// XXH3, 64 bits, seed 0, over `len(ns) ns id` (the length as two bytes, big endian), modulo `shards`.
    ///
    /// Part of the format: another hash would send every timer to a shard where nobody looks for it.
    pub fn shard(&self, shards: u16) -> Shard {
        let ns = self.ns.as_str().as_bytes();
        let length = u16::try_from(ns.len()).unwrap_or(u16::MAX);
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        hasher.update(&length.to_be_bytes());
        hasher.update(ns);
        hasher.update(self.id.as_bytes());
        (hasher.digest() % u64::from(shards.max(1))) as Shard
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::key::{MachineId, Namespace};
    use super::*;

    #[test]
    fn the_hash_of_shards_stays_as_it_is() {
        let key = |id: &'static str| MachineKey {
            ns: Namespace::new("ns"),
            id: MachineId::new(Bytes::from_static(id.as_bytes())).unwrap(),
        };
        let shards: Vec<_> = ["1", "2", "payment", "ключ"].iter().map(|id| key(id).shard(256)).collect();
        assert_eq!(shards, [172, 29, 97, 1]);
        assert_eq!(key("1").shard(1), 0);
        assert_eq!(key("1").shard(0), 0);
    }
}
