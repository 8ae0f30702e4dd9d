//! Which configuration a recording needs: a YAML template beside it, or a built-in one of its name.

use std::path::Path;

/// `default_processing_timeout` of every recording, milliseconds: deadlines that no caller sent are this far away.
pub const DEFAULT_PROCESSING_TIMEOUT: i64 = 5_000;

/// The recordings that are known by name.
const BUILT_IN: &[(&str, &str)] = &[
    ("mg_woody", include_str!("../recordings/mg_woody.yaml")),
    ("mg2021", include_str!("../recordings/mg2021.yaml")),
    ("modernizer", include_str!("../recordings/modernizer.yaml")),
];

/// Where the service keeps machines during a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    Memory,
    /// In this directory, which should be empty.
    Embedded(std::path::PathBuf),
    /// As the configuration's `storage` says, in YAML on one line.
    Other(String),
}

/// The template for a recording: `FILE` with the ending `.yaml` if there is one, else the built-in of that name.
pub fn template(recording: &Path) -> Result<String, String> {
    let beside = recording.with_extension("yaml");
    if beside.exists() {
        return std::fs::read_to_string(&beside).map_err(|error| format!("{}: {error}", beside.display()));
    }
    let name = recording.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    built_in(&name).map(str::to_owned).ok_or_else(|| {
        format!("nobody knows the configuration of `{name}`: write {} with {{{{processor}}}} and {{{{storage}}}}", {
            beside.display()
        })
    })
}

pub fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|known| known.0 == name).map(|known| known.1)
}

/// A template with the processor's origin and the storage filled in.
pub fn fill(template: &str, processor: &str, storage: &Storage) -> String {
    let storage = match storage {
        Storage::Memory => "{type: memory}".to_owned(),
        Storage::Embedded(path) => {
            format!("{{type: embedded, path: \"{}\", free_space_reserve: 1M}}", path.display())
        }
        Storage::Other(storage) => storage.clone(),
    };
    template.replace("{{processor}}", processor).replace("{{storage}}", &storage)
}
