//! What stands of the machines seen last, within a budget.

use hashlink::LruCache;

use super::layout::Standing;
use crate::machine::MachineKey;

/// Bytes of all standings together, about. A machine that fell out costs its next commit one read.
const BUDGET: usize = 64 << 20;

pub struct Standings {
    held: LruCache<MachineKey, Standing>,
    bytes: usize,
}

// === impl Standings ===

impl Default for Standings {
    fn default() -> Self {
        Self { held: LruCache::new_unbounded(), bytes: 0 }
    }
}

impl Standings {
    pub fn get(&mut self, key: &MachineKey) -> Option<Standing> {
        self.held.get(key).cloned()
    }

    pub fn keep(&mut self, key: &MachineKey, standing: Standing) {
        self.forget(key);
        self.bytes += cost(key, &standing);
        self.held.insert(key.detached(), standing);
        while self.bytes > BUDGET
            && let Some((key, oldest)) = self.held.remove_lru()
        {
            self.bytes -= cost(&key, &oldest);
        }
    }

    pub fn forget(&mut self, key: &MachineKey) {
        if let Some(old) = self.held.remove(key) {
            self.bytes -= cost(key, &old);
        }
    }
}

fn cost(key: &MachineKey, standing: &Standing) -> usize {
    key.id.as_bytes().len() + standing.size()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::machine::{CommitId, MachineId, Namespace};
    use crate::storage::dynamodb::layout::{Layout, Run};

    #[test]
    fn the_oldest_go_past_the_budget_and_nothing_is_counted_twice() {
        let key = |n: u32| MachineKey {
            ns: Namespace::new("ns"),
            id: MachineId::new(Bytes::copy_from_slice(&n.to_be_bytes())).unwrap(),
        };
        let tail = vec![Run::Inline { first: 1, events: vec![Bytes::from(vec![7; 1 << 20])] }];
        let standing =
            Standing { commit: CommitId([1; 16]), epoch: CommitId([1; 16]), layout: Layout { tail, ..Layout::EMPTY } };
        let mut standings = Standings::default();
        for n in 0..100 {
            standings.keep(&key(n), standing.clone());
            standings.keep(&key(n), standing.clone());
        }
        assert!(standings.bytes <= BUDGET && standings.bytes > BUDGET / 2);
        assert_eq!(standings.get(&key(0)), None);
        assert_eq!(standings.get(&key(99)), Some(standing));
        for n in 0..100 {
            standings.forget(&key(n));
        }
        assert_eq!(standings.bytes, 0);
    }
}
