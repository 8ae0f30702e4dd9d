//! What `/health` says beside the host's disk and memory: how the store, the sinks and this instance's shards are. What is
//! well, or not there, does not show.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::config::StorageSettings;
use crate::engine::Engine;
use crate::ops::health::{Check, Trouble};

pub(super) fn of(storage: &StorageSettings, engine: &Arc<Engine>, cluster: Option<&Arc<Cluster>>) -> Vec<Check> {
    let mut checks = Vec::new();
    if let StorageSettings::Embedded(embedded) = storage {
        let (path, reserve) = (embedded.path.clone(), embedded.free_space_reserve);
        let look = move || {
            let stat = rustix::fs::statvfs(&path).ok()?;
            space(stat.f_bavail.saturating_mul(stat.f_frsize), reserve)
        };
        checks.push(Check { name: "storage", look: Arc::new(look) });
    }
    let lagging = engine.clone();
    checks.push(Check { name: "sinks", look: Arc::new(move || lag(&lagging.behind())) });
    let stuck = engine.clone();
    checks.push(Check { name: "event_sinks", look: Arc::new(move || waiting_to_be_mended(&stuck)) });
    if let Some(cluster) = cluster.cloned() {
        checks.push(Check { name: "shards", look: Arc::new(move || Some((None, json!(cluster.standing())))) });
    }
    checks
}

/// Reads go on, writes are refused.
fn space(free: u64, reserve: u64) -> Option<(Option<Trouble>, Value)> {
    (free < reserve).then(|| (Some(Trouble::Critical), json!({ "free": free, "reserve": reserve })))
}

fn lag(namespaces: &[&str]) -> Option<(Option<Trouble>, Value)> {
    (!namespaces.is_empty()).then(|| (Some(Trouble::Warning), json!({ "behind": namespaces })))
}

/// Sinks that wait for somebody's mending. They hold up nothing but themselves, so the service is healthy.
fn waiting_to_be_mended(engine: &Engine) -> Option<(Option<Trouble>, Value)> {
    let details = engine.sink_troubles().into_iter().map(|trouble| {
        json!({
            "namespace": trouble.namespace,
            "name": &*trouble.sink,
            "machines": trouble.machines,
            "reason": trouble.reason,
        })
    });
    let details: Vec<_> = details.collect();
    (!details.is_empty()).then(|| (None, details.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_lagging_sink_show_in_health() {
        assert_eq!(space(7, 7), None);
        assert_eq!(space(6, 7), Some((Some(Trouble::Critical), json!({ "free": 6, "reserve": 7 }))));
        assert_eq!(lag(&[]), None);
        assert_eq!(lag(&["ns"]), Some((Some(Trouble::Warning), json!({ "behind": ["ns"] }))));
    }
}
