//! The configuration: YAML as users write it becomes checked [`Settings`].
//!
//! A file is read as a tree that knows where each key stands, held against the table of all keys (`keys`), and read by
//! the rooms' own readers. All errors are found in one go, each with its path, what is wrong, and what to write
//! instead. No key is ignored in silence: what is unknown or not built is an error, and what is ignored or used
//! in another way comes as a notice in the [`Report`].

mod check;
mod describe;
mod duration;
mod kafka;
mod keys;
mod lines;
mod namespaces;
mod processors;
mod reader;
mod report;
mod retries;
mod service;
mod settings;
mod sinks;
mod size;
mod storage;
#[cfg(test)]
mod tests;
mod tree;

use std::path::Path;

pub use describe::describe;
pub use kafka::{
    Compression, KafkaClient, KafkaEndpoint, KafkaProducer, KafkaSasl, KafkaSsl, KafkaTopic, RequiredAcks, SaslLogin,
    SaslMechanism, Secret,
};
pub use namespaces::{NamespaceSettings, NotificationSettings, OverseerSettings, TimersSettings};
pub use processors::{ModernizerSettings, ProcessorSettings, StepProcessors};
pub use report::{Became, ConfigErrors, KeyReport, Notice, Problem, Report};
pub use retries::Retries;
pub use settings::{
    BodiesLimit, DiskLimit, LimitsSettings, LogFormatter, LogLevel, LogOutput, LoggingSettings, MemoryKind,
    MemoryLimit, Settings, StepsInFlight, WoodyServerSettings, WorkerSettings,
};
pub use sinks::{Ack, EventSinkKind, EventSinkSettings, LIFECYCLE_SINK, OutboxSettings};
pub use storage::{DynamodbSettings, EmbeddedSettings, StorageSettings};

/// Reads a file, with the variables of the process's environment.
pub fn load(path: &Path) -> Result<(Settings, Report), ConfigErrors> {
    let from_file = |problems| ConfigErrors { file: Some(path.to_owned()), problems };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let wrong = format!("can't be read: {error}");
        let instead = "name a configuration file that is there";
        from_file(vec![Problem::new("", None, wrong, instead)])
    })?;
    parse(&text, &|name: &str| std::env::var(name).ok()).map_err(|errors| from_file(errors.problems))
}

/// Reads a text; `env` looks up the variables for `${VAR}`.
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(Settings, Report), ConfigErrors> {
    let failed = |problems| ConfigErrors { file: None, problems };
    let root = tree::read(text).map_err(failed)?;
    let mut checked = check::check(&root);
    let reading = reader::Reading::new(env);
    let settings = service::read(&reading.section(&root));
    let found = reading.finish();
    checked.problems.extend(found.problems);
    checked.report.notices.extend(found.notices);
    if checked.problems.is_empty() {
        Ok((settings, checked.report))
    } else {
        checked.problems.sort_by_key(|problem| problem.line);
        Err(failed(checked.problems))
    }
}
