//! `/health`: whether the host's disk and memory, the store and the sinks are as they should be.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::memory::{Host, Memory, percent};
use crate::config::{DiskLimit, LimitsSettings, MemoryLimit};

/// Answers `/health`. Looking costs a few system calls, on a thread that serves nobody.
#[derive(Debug)]
pub struct Health {
    service: String,
    disk: Option<DiskLimit>,
    memory: Option<MemoryLimit>,
    host: Host,
    /// What others have to say.
    checks: Vec<Check>,
}

/// Another room's own view of itself.
pub struct Check {
    pub name: &'static str,
    /// Says what there is to be said, and how wrong it is.
    pub look: Arc<dyn Fn() -> Option<(Option<Trouble>, Value)> + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It goes on, and somebody should look.
    Warning,
    /// It can't do its work.
    Critical,
}

/// What a check says: its value in the answer, and whether it is passed.
struct Checked {
    value: Value,
    trouble: Option<Trouble>,
}

// === impl Health ===

impl Health {
    pub fn new(service: &str, limits: &LimitsSettings, checks: Vec<Check>) -> Self {
        let (disk, memory) = (limits.disk.clone(), limits.memory.clone());
        Self { service: service.to_owned(), disk, memory, host: Host::default(), checks }
    }

    /// Status and body.
    pub fn look(&self) -> (StatusCode, Value) {
        let mut answer = Map::new();
        answer.insert("service".to_owned(), self.service.clone().into());
        let mut worst = None;
        let mut say = |name: &str, Checked { value, trouble }: Checked| {
            worst = worst.max(trouble);
            answer.insert(name.to_owned(), value);
        };
        if let Some(limit) = &self.disk {
            say("disk", disk(limit));
        }
        if let Some(limit) = &self.memory {
            say("memory", memory(self.host.memory(limit.kind), limit.value));
        }
        for check in &self.checks {
            if let Some((trouble, value)) = (check.look)() {
                say(check.name, Checked { value, trouble });
            }
        }
        let status = match worst {
            None => StatusCode::OK,
            Some(Trouble::Warning) => StatusCode::TOO_MANY_REQUESTS,
            Some(Trouble::Critical) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Value::Object(answer))
    }
}

/// Passed while the limit is above the value: both in percent.
fn share(used: u64, total: u64, limit: u8) -> (u64, Option<Trouble>) {
    let value = percent(used, total);
    (value, (value >= u64::from(limit)).then_some(Trouble::Critical))
}

/// What is not known passes.
fn memory(known: Option<Memory>, limit: u8) -> Checked {
    match known {
        Some(memory) => {
            let (_, trouble) = share(memory.used, memory.total, limit);
            Checked { value: memory.json(limit), trouble }
        }
        None => Checked { value: json!({ "value": "unknown", "limit": limit }), trouble: None },
    }
}

fn disk(limit: &DiskLimit) -> Checked {
    let path = limit.path.display().to_string();
    match rustix::fs::statvfs(&limit.path) {
        Ok(stat) => {
            // As `df` counts it: what only root may use is not there for anyone.
            let used = stat.f_blocks.saturating_sub(stat.f_bfree);
            let (value, trouble) = share(used, used.saturating_add(stat.f_bavail), limit.value);
            Checked { value: json!({ "path": path, "value": value, "limit": limit.value }), trouble }
        }
        Err(error) => Checked {
            value: json!({ "path": path, "error": error.to_string(), "limit": limit.value }),
            trouble: Some(Trouble::Critical),
        },
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemoryKind;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            std::fs::write(path, text).expect("a file");
        }
        let host = Host { proc: folder.path().join("proc"), cgroup: folder.path().join("cgroup") };
        (folder, host)
    }

    fn health(disk: Option<u8>, memory: Option<(MemoryKind, u8)>, host: Host, checks: Vec<Check>) -> Health {
        let disk = disk.map(|value| DiskLimit { path: "/".into(), value });
        let memory = memory.map(|(kind, value)| MemoryLimit { kind, value });
        Health { service: "machinegun".to_owned(), disk, memory, host, checks }
    }

    #[test]
    fn memory_is_that_of_the_container_by_either_kind_of_cgroups() {
        let second = [
            ("proc/self/cgroup", "0::/box\n"),
            ("cgroup/box/memory.max", "1000\n"),
            ("cgroup/box/memory.stat", "anon 800\nfile 100\n"),
        ];
        let inside = [
            ("proc/self/cgroup", "0::/not/mounted\n"),
            ("cgroup/memory.max", "1000\n"),
            ("cgroup/memory.stat", "anon 800\n"),
        ];
        let first = [
            ("proc/self/cgroup", "7:cpu,memory:/box\n"),
            ("cgroup/memory/box/memory.limit_in_bytes", "1000\n"),
            ("cgroup/memory/box/memory.stat", "rss 7\ntotal_rss 800\n"),
        ];
        for files in [&second[..], &inside, &first] {
            let (_folder, host) = host(files);
            let (status, answer) = health(None, Some((MemoryKind::Cgroups, 81)), host.clone(), Vec::new()).look();
            let memory = json!({ "rss": 800, "total": 1000, "value": 80, "limit": 81 });
            assert_eq!((status.as_u16(), answer), (200, json!({ "service": "machinegun", "memory": memory })));
            let (status, _) = health(None, Some((MemoryKind::Cgroups, 80)), host, Vec::new()).look();
            assert_eq!(status.as_u16(), 503, "passed only while the limit is above the value");
        }
    }

    #[test]
    fn a_container_without_a_limit_passes() {
        let none = [("cgroup/memory.max", "max\n"), ("cgroup/memory.stat", "anon 800\n")];
        let many = [
            ("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cgroup/memory/memory.stat", "rss 1\n"),
        ];
        for files in [&none[..], &many, &[]] {
            let (_folder, host) = host(files);
            let (status, answer) = health(None, Some((MemoryKind::Cgroups, 1)), host, Vec::new()).look();
            assert_eq!((status.as_u16(), &answer["memory"]["value"]), (200, &json!("unknown")));
        }
    }

    #[test]
    fn memory_of_the_host_is_what_is_not_available() {
        let (_folder, host) = host(&[("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n")]);
        let (status, answer) = health(None, Some((MemoryKind::Total, 75)), host, Vec::new()).look();
        let memory = json!({ "rss": 750 << 10, "total": 1000 << 10, "value": 75, "limit": 75 });
        assert_eq!((status.as_u16(), &answer["memory"]), (503, &memory));
    }

    #[test]
    fn a_disk_passes_while_its_limit_is_above_its_use() {
        let (_folder, host) = host(&[]);
        let (status, answer) = health(Some(0), None, host.clone(), Vec::new()).look();
        assert_eq!((status.as_u16(), &answer["disk"]["path"], &answer["disk"]["limit"]), (503, &json!("/"), &json!(0)));
        let used = answer["disk"]["value"].as_u64().expect("a share");
        assert!(used <= 100, "{answer}");
        let gone = Health {
            disk: Some(DiskLimit { path: "/not/there".into(), value: 100 }),
            ..health(None, None, host, Vec::new())
        };
        assert_eq!(gone.look().0.as_u16(), 503);
    }

    #[test]
    fn the_worst_check_says_what_the_whole_is() {
        let check = |name, trouble: Option<Trouble>| Check {
            name,
            look: Arc::new(move || trouble.map(|trouble| (Some(trouble), json!(["why"])))),
        };
        let status = |storage, sinks| {
            let (_folder, host) = host(&[]);
            health(None, None, host, vec![check("storage", storage), check("sinks", sinks)]).look()
        };
        let (critical, warning) = (Some(Trouble::Critical), Some(Trouble::Warning));
        assert_eq!(status(None, None), (StatusCode::OK, json!({ "service": "machinegun" })));
        assert_eq!(status(None, warning).0, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(status(critical, warning).0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(None, warning).1["sinks"], json!(["why"]));
    }
}
