//! How much memory is used, and what is done about it when it is short.
//!
//! Policy. Past the limit the cache is halved at each look; if that was not enough by the next one, no new work is taken,
//! so that what is running can end and the system never has to kill. Work is taken again once a twentieth of the limit is
//! free, and the cache may grow again, a little at each look.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{MemoryKind, MemoryLimit};

/// Without a setting: the container's own limit, if there is one, well before the system kills for it.
const DEFAULT: MemoryLimit = MemoryLimit { kind: MemoryKind::Cgroups, value: 90 };

/// By which part of its capacity the cache may grow again at each look.
const REGROWTH: usize = 64;

/// Where the host says how it is: tests have files of their own.
#[derive(Clone, Debug)]
pub struct Host {
    pub proc: PathBuf,
    pub cgroup: PathBuf,
}

/// Bytes in use, and bytes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub used: u64,
    pub total: u64,
}

/// Looks at the memory now and then, and says what to do.
#[derive(Debug)]
pub struct Guard {
    limit: MemoryLimit,
    host: Host,
    pressure: Pressure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough.
    None,
    /// The cache is too large.
    Shed,
    /// And that was not enough: no new work is taken.
    Refuse,
}

/// What to do about the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheNow {
    /// Bytes that it may hold now.
    pub allowed: usize,
    /// Bytes that it may hold when there is enough of all.
    pub capacity: usize,
    pub held: usize,
}

// === impl Memory ===

impl Memory {
    pub(super) fn percent(self) -> u64 {
        percent(self.used, self.total)
    }

    /// As `/health` says it.
    pub fn json(self, limit: u8) -> Value {
        json!({ "rss": self.used, "total": self.total, "value": self.percent(), "limit": limit })
    }
}

pub(super) fn percent(used: u64, total: u64) -> u64 {
    (u128::from(used) * 100 / u128::from(total.max(1))) as u64
}

// === impl Guard ===

impl Guard {
    pub fn new(limit: Option<&MemoryLimit>) -> Self {
        Self::on(limit, Host::default())
    }

    /// As [`Self::new`], with a host of one's own.
    pub fn on(limit: Option<&MemoryLimit>, host: Host) -> Self {
        Self { limit: limit.cloned().unwrap_or(DEFAULT), host, pressure: Pressure::None }
    }

    /// Percent.
    pub fn limit(&self) -> u8 {
        self.limit.value
    }

    /// Reads a few small files. What is not known is enough.
    pub fn look(&mut self) -> (Option<Memory>, Pressure) {
        let memory = self.host.memory(self.limit.kind);
        self.pressure = self.pressure.next(memory.map(Memory::percent), self.limit.value);
        (memory, self.pressure)
    }
}

// === impl Pressure ===

impl Pressure {
    /// At the next look, by the share in use and the limit: both in percent.
    fn next(self, value: Option<u64>, limit: u8) -> Self {
        let Some(value) = value else { return Self::None };
        let (limit, low) = (u64::from(limit), u64::from(limit - limit / 20));
        match self {
            Self::None if value >= limit => Self::Shed,
            Self::Shed if value >= limit => Self::Refuse,
            Self::None => Self::None,
            Self::Shed | Self::Refuse if value < low => Self::None,
            pressure => pressure,
        }
    }

    /// What the cache may hold from now on.
    pub fn allows(self, cache: CacheNow) -> usize {
        match self {
            Self::None => cache.allowed.saturating_add((cache.capacity / REGROWTH).max(1)).min(cache.capacity),
            Self::Shed => (cache.held / 2).min(cache.allowed),
            Self::Refuse => 0,
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroup: "/sys/fs/cgroup".into() }
    }
}

// === impl Host ===

impl Host {
    /// None: it is not known.
    pub(super) fn memory(&self, kind: MemoryKind) -> Option<Memory> {
        let (used, total) = match kind {
            MemoryKind::Cgroups => self.container()?,
            MemoryKind::Total => self.whole()?,
        };
        Some(Memory { used, total })
    }

    /// Bytes in use, and bytes there are: of the first of the two kinds of cgroups that has a limit.
    fn container(&self) -> Option<(u64, u64)> {
        let own = std::fs::read_to_string(self.proc.join("self/cgroup")).unwrap_or_default();
        // `0::/path` is the second kind's; `7:memory:/path` the first's.
        let path = |kind: &str| {
            let line = own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (kinds, path) = rest.split_once(':')?;
                kinds.split(',').any(|it| it == kind).then_some(path)
            });
            line.unwrap_or("/").trim_start_matches('/').to_owned()
        };
        // Within a container the group's own path is often not mounted, and the root is the group.
        let second = [self.cgroup.join(path("")), self.cgroup.clone()];
        let first = [self.cgroup.join("memory").join(path("memory")), self.cgroup.join("memory")];
        let second = second.iter().find_map(|folder| {
            let total = number(&folder.join("memory.max"))?;
            Some((resident(folder, "anon ")?, total))
        });
        second.or_else(|| {
            first.iter().find_map(|folder| {
                let total = number(&folder.join("memory.limit_in_bytes"))?;
                // Without a limit there is a number that no memory has.
                (total < 1 << 60).then_some(())?;
                Some((resident(folder, "total_rss ").or_else(|| resident(folder, "rss "))?, total))
            })
        })
    }

    fn whole(&self) -> Option<(u64, u64)> {
        let text = std::fs::read_to_string(self.proc.join("meminfo")).ok()?;
        let kilobytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (total, available) = (kilobytes("MemTotal:")?, kilobytes("MemAvailable:")?);
        Some((total.saturating_sub(available) << 10, total << 10))
    }
}

/// A file that holds one number; `max` is none.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn resident(folder: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join("memory.stat")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_goes_first_then_new_work_is_refused_until_some_memory_is_free_again() {
        use Pressure::{None, Refuse, Shed};
        let looks = [
            (89, None),
            (90, Shed),
            (85, None),
            (95, Shed),
            (88, Shed),
            (90, Refuse),
            (86, Refuse),
            (95, Refuse),
            (86, Refuse),
            (85, None),
        ];
        let mut pressure = None;
        for (value, expected) in looks {
            pressure = pressure.next(Some(value), 90);
            assert_eq!(pressure, expected, "{value}%");
        }
        assert_eq!(Refuse.next(Option::None, 90), None, "what is not known is enough");
        // A limit of one percent can be left again, too.
        assert_eq!(Refuse.next(Some(0), 1), None);
    }

    #[test]
    fn the_cache_is_halved_emptied_and_grows_again() {
        let mut cache = CacheNow { allowed: 6_400, capacity: 6_400, held: 1_000 };
        cache.allowed = Pressure::Shed.allows(cache);
        assert_eq!(cache.allowed, 500);
        assert_eq!(Pressure::Refuse.allows(cache), 0);
        cache.allowed = 0;
        for looks in 1..=REGROWTH {
            cache.allowed = Pressure::None.allows(cache);
            assert_eq!(cache.allowed, looks * 100);
        }
        assert_eq!(Pressure::None.allows(cache), 6_400);
    }

    #[test]
    fn without_a_setting_the_containers_own_limit_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = Host { proc: folder.path().join("proc"), cgroup: folder.path().join("cgroup") };
        let mut guard = Guard::on(None, host.clone());
        assert_eq!(guard.look(), (None, Pressure::None), "there is none");
        std::fs::create_dir_all(&host.cgroup).expect("a folder");
        std::fs::write(host.cgroup.join("memory.max"), "1000\n").expect("a file");
        std::fs::write(host.cgroup.join("memory.stat"), "anon 900\n").expect("a file");
        let memory = Some(Memory { used: 900, total: 1_000 });
        assert_eq!(guard.look(), (memory, Pressure::Shed));
        assert_eq!(guard.look(), (memory, Pressure::Refuse));
        std::fs::write(host.cgroup.join("memory.stat"), "anon 10\n").expect("a file");
        assert_eq!(guard.look().1, Pressure::None);
    }
}
