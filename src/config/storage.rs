//! Where machines are kept.

use std::path::PathBuf;

use serde::Serialize;

use super::reader::Section;
use super::size;

/// `storage`
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum StorageSettings {
    /// `type: embedded`: in a directory of this host, by this process.
    Embedded(EmbeddedSettings),
    /// `type: memory`: gone when the process ends. For tests and benches.
    Memory,
}

/// `storage` with `type: embedded`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddedSettings {
    /// `path`: the directory; made if it is not there. No default.
    pub path: PathBuf,
    /// `free_space_reserve`: bytes that stay free on its file system, 0B to 1P; writes are refused below it and reads
    /// go on. Default 512M: room for the compaction that frees space again.
    #[serde(serialize_with = "size::text")]
    pub free_space_reserve: u64,
}

const EMBEDDED: &str = "write `storage: {type: embedded, path: /var/lib/machinegun}`";
const DEFAULT_RESERVE: u64 = 512 << 20;

// === impl StorageSettings ===

impl StorageSettings {
    /// In this directory, with the defaults.
    pub fn embedded(path: impl Into<PathBuf>) -> Self {
        StorageSettings::Embedded(EmbeddedSettings { path: path.into(), free_space_reserve: DEFAULT_RESERVE })
    }

    /// Whether a ledger's entries are part of the commit that brings their events, so that no step owes them.
    pub fn commit_holds_ledger(&self) -> bool {
        match self {
            StorageSettings::Embedded(_) | StorageSettings::Memory => true,
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> StorageSettings {
    section.require("type", EMBEDDED);
    // INVARIANT: whatever is returned after an error has been noted is thrown away with the other settings.
    let path = section.text("path");
    let free_space_reserve = section.size("free_space_reserve", DEFAULT_RESERVE, 0..=1 << 50);
    let Some(item) = section.item("type") else {
        return StorageSettings::Memory;
    };
    match item.text().as_deref() {
        None => StorageSettings::Memory,
        Some("embedded") => {
            if !section.has("path") {
                section.require("path", EMBEDDED);
            } else if path.as_deref() == Some("") {
                section.wrong_key("path", "is empty", EMBEDDED);
            }
            StorageSettings::Embedded(EmbeddedSettings {
                path: PathBuf::from(path.unwrap_or_default()),
                free_space_reserve,
            })
        }
        Some("memory") => {
            for key in ["path", "free_space_reserve"] {
                if section.has(key) {
                    section.notice_key(key, "has no effect: `type: memory` keeps nothing on a disk");
                }
            }
            StorageSettings::Memory
        }
        Some("riak") => {
            let wrong = "is `riak`, which this service does not speak";
            item.wrong(wrong, &format!("{EMBEDDED}, and move the machines there"));
            StorageSettings::Memory
        }
        Some("dynamodb") => {
            let wrong = "is `dynamodb`, which is not built yet";
            item.wrong(wrong, EMBEDDED);
            StorageSettings::Memory
        }
        Some(_) => {
            item.refuse::<()>("write `embedded`, or `memory` for tests");
            StorageSettings::Memory
        }
    }
}
