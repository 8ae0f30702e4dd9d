//! What follows when memory is short: the cache shrinks, new work and larger bodies are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::LimitsSettings;
use crate::engine::Engine;
use crate::ops::health::{Check, Trouble};
use crate::ops::memory::{CacheNow, Guard, Memory, Pressure};
use crate::telemetry::{Metrics, metrics as names};
use crate::woody::Bodies;

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// What the last look came to, for metrics and `/health`.
#[derive(Debug, Default)]
struct Last {
    used: AtomicU64,
    total: AtomicU64,
    refusing: AtomicBool,
}

/// Watches memory until it is aborted. The check says what is refused, where `/health` does not watch memory anyway.
pub(super) fn watch(
    limits: &LimitsSettings,
    engine: &Arc<Engine>,
    bodies: [Arc<Bodies>; 2],
    clock: &Clock,
    metrics: &Metrics,
) -> (JoinHandle<()>, Option<Check>) {
    let mut guard = Guard::new(limits.memory.as_ref());
    let (last, limit) = (Arc::new(Last::default()), guard.limit());
    let watched = last.clone();
    metrics.watch(names::MEMORY_USED, move || watched.used.load(Ordering::Relaxed));
    let watched = last.clone();
    metrics.watch(names::MEMORY_TOTAL, move || watched.total.load(Ordering::Relaxed));
    let watched = last.clone();
    metrics.watch(names::MEMORY_REFUSING, move || u64::from(watched.refusing.load(Ordering::Relaxed)));
    let shown = last.clone();
    let look = move || {
        let memory = Memory { used: shown.used.load(Ordering::Relaxed), total: shown.total.load(Ordering::Relaxed) };
        let refusing = shown.refusing.load(Ordering::Relaxed);
        refusing.then(|| (Some(Trouble::Critical), json!(memory.json(limit))))
    };
    let check = limits.memory.is_none().then(|| Check { name: "memory", look: Arc::new(look) });
    let (engine, clock) = (engine.clone(), clock.clone());
    let watching = async move {
        let interval = INTERVAL.as_millis() as i64;
        let mut before = Pressure::None;
        loop {
            // A few small files, of which the kernel may take its time to make one.
            let looked = tokio::task::spawn_blocking(move || {
                let looked = guard.look();
                (guard, looked)
            });
            let Ok((same, (memory, pressure))) = looked.await else { return };
            guard = same;
            last.see(memory, pressure);
            let (allowed, capacity) = engine.cache_allowed();
            let allows = pressure.allows(CacheNow { allowed, capacity, held: engine.cached_bytes() });
            if allows != allowed {
                engine.allow_cache(allows);
            }
            let refuses = pressure == Pressure::Refuse;
            if refuses != (before == Pressure::Refuse) {
                engine.set_short(refuses);
                bodies.iter().for_each(|bodies| bodies.set_short(refuses));
            }
            if pressure != before {
                tell(memory, pressure, limit);
                before = pressure;
            }
            clock.sleep_until_monotonic(clock.monotonic().saturating_add(interval)).await;
        }
    };
    (tokio::spawn(watching), check)
}

fn tell(memory: Option<Memory>, pressure: Pressure, limit: u8) {
    let Memory { used, total } = memory.unwrap_or(Memory { used: 0, total: 0 });
    match pressure {
        Pressure::None => tracing::info!(used, total, "memory is plenty again: new work is taken"),
        Pressure::Shed => tracing::warn!(used, total, limit, "memory is short (limits.memory): the cache shrinks"),
        Pressure::Refuse => {
            tracing::error!(used, total, limit, "memory is short (limits.memory): no new work is taken");
        }
    }
}

// === impl Last ===

impl Last {
    fn see(&self, memory: Option<Memory>, pressure: Pressure) {
        let Memory { used, total } = memory.unwrap_or(Memory { used: 0, total: 0 });
        self.used.store(used, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.refusing.store(pressure == Pressure::Refuse, Ordering::Relaxed);
    }
}
