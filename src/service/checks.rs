//! What `/health` says beside the host's disk and memory: how the store and the sinks are. Neither shows while it is well.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::StorageSettings;
use crate::engine::Engine;
use crate::ops::health::{Check, Trouble};

pub(super) fn of(storage: &StorageSettings, engine: &Arc<Engine>) -> Vec<Check> {
    let mut checks = Vec::new();
    if let StorageSettings::Embedded(embedded) = storage {
        let (path, reserve) = (embedded.path.clone(), embedded.free_space_reserve);
        let look = move || {
            let stat = rustix::fs::statvfs(&path).ok()?;
            space(stat.f_bavail.saturating_mul(stat.f_frsize), reserve)
        };
        checks.push(Check { name: "storage", look: Arc::new(look) });
    }
    let engine = engine.clone();
    checks.push(Check { name: "sinks", look: Arc::new(move || lag(&engine.behind())) });
    checks
}

/// Reads go on, writes are refused.
fn space(free: u64, reserve: u64) -> Option<(Trouble, Value)> {
    (free < reserve).then(|| (Trouble::Critical, json!({ "free": free, "reserve": reserve })))
}

fn lag(namespaces: &[&str]) -> Option<(Trouble, Value)> {
    (!namespaces.is_empty()).then(|| (Trouble::Warning, json!({ "behind": namespaces })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_lagging_sink_show_in_health() {
        assert_eq!(space(7, 7), None);
        assert_eq!(space(6, 7), Some((Trouble::Critical, json!({ "free": 6, "reserve": 7 }))));
        assert_eq!(lag(&[]), None);
        assert_eq!(lag(&["ns"]), Some((Trouble::Warning, json!({ "behind": ["ns"] }))));
    }
}
