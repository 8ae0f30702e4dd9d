//! Spans go out by OTLP over HTTP, in batches, beside the service's work.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustls::RootCertStore;
use tokio::runtime::Handle;
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::{Header, TraceError, jaeger};
use crate::telemetry::scope;
use crate::tls;

/// How contexts travel in headers. Set once, when traces are started.
static PROPAGATOR: OnceLock<TextMapCompositePropagator> = OnceLock::new();

const PROPAGATORS: &str = "OTEL_PROPAGATORS";
const UBER_TRACE_ID: &str = "uber-trace-id";

/// The most of a collector's answer that is read.
const MOST_OF_ANSWER: usize = 1 << 20;

/// How long the end of the process waits for the last spans to go out.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The traces of this process. What was not sent yet is sent when this is dropped.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

/// Sends batches. The exporter runs on a thread of its own, without a runtime.
#[derive(Debug)]
struct Sending {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    timeout: Duration,
    /// The last one failed: said once, until one arrives again.
    failing: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Jaeger([String; 1]);

/// Headers to read a context from, or to write one to.
#[derive(Default)]
struct Headers(Vec<(String, String)>);

// === impl Traces ===

impl Traces {
    /// Starts them if the environment asks for them: by a collector's address, or `OTEL_TRACES_EXPORTER=otlp`. Needs a
    /// runtime.
    pub fn start(service_name: &str) -> Result<Option<Self>, TraceError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint =
            variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let wanted = match variable("OTEL_TRACES_EXPORTER").as_deref() {
            None => endpoint.is_some(),
            Some("otlp") => true,
            Some("none") => false,
            Some(other) => return Err(TraceError(format!("OTEL_TRACES_EXPORTER={other}: write otlp or none"))),
        };
        if !wanted || variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let secure = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("https://"));
        if let Some(endpoint) = endpoint.filter(|endpoint| !secure && !endpoint.starts_with("http://")) {
            return Err(TraceError(format!(
                "spans are sent over HTTP or HTTPS, and {endpoint} is neither: write the address of a collector, like http://localhost:4318"
            )));
        }
        let propagator = propagator(variable(PROPAGATORS).as_deref())?;
        let milliseconds = |name: &str| variable(name).and_then(|value| value.trim().parse().ok());
        let timeout = milliseconds("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT"))
            .unwrap_or(10_000);
        let sending = Sending {
            client: Client::builder(TokioExecutor::new()).build(connector(secure)?),
            runtime: Handle::current(),
            timeout: Duration::from_millis(timeout),
            failing: Arc::default(),
        };
        let exporter = SpanExporter::builder().with_http().with_http_client(sending).build();
        let exporter = exporter.map_err(|error| TraceError(error.to_string()))?;
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|it| it.contains("service.name="));
        let resource = match named {
            true => Resource::builder(),
            false => Resource::builder().with_attribute(KeyValue::new("service.name", service_name.to_owned())),
        };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        // A second start finds the first one's, which is as good.
        let _ = PROPAGATOR.set(propagator);
        Ok(Some(Self(provider)))
    }

    /// What makes spans of ours into theirs.
    pub(in crate::telemetry) fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("machinegun"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        layer.with_filter(filter_fn(is_traced).with_max_level_hint(LevelFilter::INFO)).boxed()
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_WORDS) {
            tracing::warn!(error.reason = %error, "the last spans were not sent");
        }
    }
}

/// A collector's certificate is checked by the system's authorities, which a plain one does not need.
fn connector(secure: bool) -> Result<HttpsConnector<HttpConnector>, TraceError> {
    let config = match secure {
        true => tls::trusting_the_system().map_err(|error| TraceError(error.to_string()))?,
        false => tls::trusting(RootCertStore::empty()),
    };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder.https_or_http().enable_http1().build())
}

/// Scopes, what is traced, and what goes wrong within them.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target == scope::TRACED || target == scope::TARGET;
    ours || (metadata.is_event() && target.starts_with("machinegun") && *metadata.level() <= Level::WARN)
}

fn propagator(names: Option<&str>) -> Result<TextMapCompositePropagator, TraceError> {
    let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
    for name in names.unwrap_or("tracecontext,baggage").split(',') {
        propagators.push(match name.trim() {
            "tracecontext" => Box::new(TraceContextPropagator::new()),
            "baggage" => Box::new(BaggagePropagator::new()),
            "jaeger" => Box::new(Jaeger([UBER_TRACE_ID.to_owned()])),
            "none" => continue,
            other => {
                return Err(TraceError(format!(
                    "{PROPAGATORS}: {other:?}: write tracecontext, baggage, jaeger or none"
                )));
            }
        });
    }
    Ok(TextMapCompositePropagator::new(propagators))
}

pub fn is_on() -> bool {
    PROPAGATOR.get().is_some()
}

/// Makes a scope, not entered yet, the child of the span that these headers name.
pub fn arrive<'a>(scope: &Span, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    let Some(propagator) = PROPAGATOR.get() else { return };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = Headers(headers.map(|(name, value)| (text(name), text(value))).collect());
    // Otherwise it is the root of a trace of its own.
    let _ = scope.set_parent(propagator.extract_with_context(&Context::new(), &headers));
}

/// Names the present span anew, once it is known what it is about.
pub fn name(name: impl Display) {
    if is_on() {
        Span::current().context().span().update_name(name.to_string());
    }
}

/// The headers that name the present span as a parent; none if there are no traces.
pub fn depart() -> Option<Vec<Header>> {
    let propagator = PROPAGATOR.get()?;
    let mut headers = Headers::default();
    propagator.inject_context(&Span::current().context(), &mut headers);
    Some(headers.0.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

/// The ids of the present trace and span, in hex.
pub fn ids() -> Option<(String, String)> {
    PROPAGATOR.get()?;
    let context = Context::current();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| (span.trace_id().to_string(), span.span_id().to_string()))
}

// === impl Headers ===

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        // An empty one says nothing (tracestate).
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

// === impl Jaeger ===

impl TextMapPropagator for Jaeger {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = context.span();
        let span = span.span_context();
        if span.is_valid() {
            let (trace, id) =
                (u128::from_be_bytes(span.trace_id().to_bytes()), u64::from_be_bytes(span.span_id().to_bytes()));
            injector.set(UBER_TRACE_ID, jaeger::format(trace, id, span.is_sampled()));
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        match extractor.get(UBER_TRACE_ID).and_then(jaeger::parse) {
            Some((trace, span, sampled)) => {
                let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
                let (trace, span) = (TraceId::from_bytes(trace.to_be_bytes()), SpanId::from_bytes(span.to_be_bytes()));
                context.with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::default()))
            }
            None => context.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.0)
    }
}

// === impl Sending ===

impl Sending {
    fn said(&self, failure: Option<&str>) {
        match failure {
            Some(reason) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(error.reason = reason, "spans can't be sent, and are dropped");
            }
            None if self.failing.swap(false, Ordering::Relaxed) => tracing::info!("spans are sent again"),
            _ => {}
        }
    }
}

/// A client's own word for a certificate that it does not take is that it can't connect.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[async_trait]
impl HttpClient for Sending {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MOST_OF_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(parts, body))
        };
        let timeout = self.timeout;
        let sent = self.runtime.spawn(async move { tokio::time::timeout(timeout, exchange).await }).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("no answer in time".into()),
            Err(error) => Err(error.into()),
        };
        match &answer {
            Ok(answer) if answer.status().is_success() => self.said(None),
            Ok(answer) => self.said(Some(answer.status().as_str())),
            Err(error) => self.said(Some(&with_causes(&**error))),
        }
        answer
    }
}
