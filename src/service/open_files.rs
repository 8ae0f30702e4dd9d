//! How many files, connections among them, this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::server_settings;
use crate::config::Settings;

/// Files beside connections: the store's, the log's, connections to storage, Kafka and traces.
const OTHERS: u64 = 512;

/// Raises the soft limit to the hard one, for the soft one is made for programs that look at every number up to it.
/// Returns what is short of what the settings may need.
pub fn allow_open_files(settings: &Settings) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    // What is not allowed stays as it was, and is told below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = needed(settings);
    (allowed < needed).then(|| {
        format!(
            "{allowed} files may be open and {needed} may be needed: raise the limit (`ulimit -n`, `LimitNOFILE=`), or lower \
             `woody_server.max_concurrent_connections` or the pools. Beyond the limit connections wait"
        )
    })
}

fn needed(settings: &Settings) -> u64 {
    let server = server_settings(settings);
    let connections = server.max_connections.saturating_add(server.max_waiting_connections);
    let pools = settings.namespaces.iter().flat_map(|namespace| {
        let steps = &namespace.processors;
        let own = [&steps.init, &steps.call, &steps.repair, &steps.timeout, &steps.notification];
        let modernizer = namespace.modernizer.as_ref().map(|it| &it.handler);
        let all = std::iter::once(&namespace.processor).chain(own.into_iter().flatten()).chain(modernizer);
        all.map(|processor| processor.pool_size as u64)
    });
    OTHERS + connections as u64 + pools.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NamespaceSettings, StorageSettings};

    #[test]
    fn what_may_be_open_is_counted_by_the_settings() {
        let namespace = NamespaceSettings::new("NS", "http://localhost/");
        let mut settings = Settings::default_with(StorageSettings::Memory).with_namespace(namespace);
        assert_eq!(needed(&settings), 512 + 2 * 1024 + 50);
        settings.woody_server.max_concurrent_connections = 1_000_000;
        let told = allow_open_files(&settings);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        let enough = limit.current.is_none_or(|allowed| allowed >= needed(&settings));
        assert_eq!(told.is_none(), enough, "{told:?}");
    }
}
