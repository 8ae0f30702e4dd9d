//! A namespace's settings as the engine and the API take them: whom it calls, and where its events go.

use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use rustls::ClientConfig;

use super::{StartError, milliseconds};
use crate::api::NamespaceInterface;
use crate::clock::{Clock, Snowflakes, random_unit};
use crate::config::{NamespaceSettings, ProcessorSettings, Settings, StepProcessors};
use crate::engine::{ModernizerOptions, NamespaceOptions, SchedulerOptions, Suicide};
use crate::machine::{Limits, Policy};
use crate::processor::{ByStep, Processor, WoodyModernizer, WoodyProcessor};
use crate::tls::{self, NoAuthorities};
use crate::wire;
use crate::woody::{Bodies, Client, ClientSettings};

/// Whom to trust, if any namespace calls a peer by TLS.
pub(super) fn tls(settings: &Settings) -> Result<Option<Arc<ClientConfig>>, NoAuthorities> {
    let is_secure =
        |it: &ProcessorSettings| it.url.parse::<Uri>().is_ok_and(|url| url.scheme() == Some(&Scheme::HTTPS));
    let wanted = settings.namespaces.iter().flat_map(called).any(is_secure);
    wanted.then(|| tls::trusting_the_system().map(Arc::new)).transpose()
}

/// All whom a namespace calls.
fn called(namespace: &NamespaceSettings) -> impl Iterator<Item = &ProcessorSettings> {
    let StepProcessors { init, call, repair, timeout, notification } = &namespace.processors;
    let own = [init, call, repair, timeout, notification].into_iter().flatten();
    let modernizer = namespace.modernizer.as_ref().map(|modernizer| &modernizer.handler);
    std::iter::once(&namespace.processor).chain(own).chain(modernizer)
}

/// The namespace as the engine runs it.
pub(super) fn options(
    namespace: &NamespaceSettings,
    settings: &Settings,
    limits: wire::Limits,
    clock: &Clock,
    snowflakes: &Arc<Snowflakes>,
    replies: &Arc<Bodies>,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<NamespaceOptions, StartError> {
    let woody_client = |service, of: &str, processor: &ProcessorSettings| {
        let url: Uri = processor.url.parse().map_err(|error| StartError::ProcessorUrl {
            namespace: namespace.name.clone(),
            key: of.to_owned(),
            reason: format!("{error}"),
        })?;
        let client = ClientSettings {
            pool_size: processor.pool_size,
            keep_alive: processor.keep_alive,
            max_response_size: usize::try_from(settings.woody_server.max_body_size).unwrap_or(usize::MAX),
            replies: replies.clone(),
            service,
            tls: tls.cloned(),
            ..ClientSettings::default()
        };
        Ok::<_, StartError>((Client::new(client, clock.clone(), snowflakes.clone()), url))
    };
    let processor = |of: &str, processor: &ProcessorSettings| {
        let (client, url) = woody_client("Processor", of, processor)?;
        Ok::<_, StartError>(Arc::new(WoodyProcessor::new(client, url, namespace.protocol, limits)) as Arc<dyn Processor>)
    };
    let own = |step: &str, settings: &Option<ProcessorSettings>| {
        settings.as_ref().map(|it| processor(&format!("processors.{step}.url"), it)).transpose()
    };
    let steps = &namespace.processors;
    let all = processor("processor.url", &namespace.processor)?;
    let processor: Arc<dyn Processor> = match *steps == StepProcessors::default() {
        true => all,
        false => Arc::new(ByStep {
            all,
            init: own("init", &steps.init)?,
            call: own("call", &steps.call)?,
            repair: own("repair", &steps.repair)?,
            timeout: own("timeout", &steps.timeout)?,
            notification: own("notification", &steps.notification)?,
        }),
    };
    let modernizer = match &namespace.modernizer {
        None => None,
        Some(modernizer) => {
            let (client, url) = woody_client("Modernizer", "modernizer.handler.url", &modernizer.handler)?;
            Some(ModernizerOptions {
                modernizer: Arc::new(WoodyModernizer::new(client, url, limits)),
                current_format_version: modernizer.current_format_version,
            })
        }
    };
    Ok(NamespaceOptions {
        name: namespace.name.clone(),
        processor,
        policy: Policy {
            timer_retries: namespace.retries.timers.clone(),
            notification_retry_ms: namespace.notification.as_ref().map_or(0, |it| milliseconds(it.reschedule_time)),
            limits: Limits { step_size: usize::try_from(settings.limits.step_size).unwrap_or(usize::MAX) },
            subscriptions: Vec::new(),
            outbox_clear_ms: milliseconds(namespace.outbox.clear_interval),
        },
        storage_retries: namespace.retries.storage.clone(),
        sink_retries: namespace.retries.continuation.clone(),
        timer_processing_ms: milliseconds(namespace.timer_processing_timeout),
        honour_timer_timeout: namespace.honour_timer_timeout,
        suicide: suicide(namespace.suicide_probability),
        unload_ms: milliseconds(namespace.unload_timeout),
        timers: namespace.timers.as_ref().map(|it| SchedulerOptions {
            scan_interval: it.scan_interval,
            capacity: it.capacity,
            scan_limit: it.scan_limit,
            min_scan_delay: it.min_scan_delay,
        }),
        notifications: namespace.notification.as_ref().map(|it| SchedulerOptions {
            scan_interval: it.scan_interval,
            capacity: it.capacity,
            scan_limit: it.scan_limit,
            min_scan_delay: it.min_scan_delay,
        }),
        sinks: Vec::new(),
        ledgers: Vec::new(),
        most_unsent: i64::try_from(namespace.outbox.max_pending).unwrap_or(i64::MAX),
        modernizer,
    })
}

/// The namespace as its callers meet it.
pub(super) fn interface(namespace: &NamespaceSettings) -> NamespaceInterface {
    NamespaceInterface {
        default_processing_ms: milliseconds(namespace.default_processing_timeout),
        protocol: namespace.protocol,
        strict_ranges: namespace.strict_ranges,
    }
}

/// None: nobody ever dies.
fn suicide(probability: f64) -> Option<Suicide> {
    (probability > 0.0).then(|| Arc::new(move || random_unit() < probability) as Suicide)
}
