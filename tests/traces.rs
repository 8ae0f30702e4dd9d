//! Traces: client, service, processor and, a timer later, the processor again are one trace, as a collector sees it.
#![cfg(feature = "otlp")]

mod certificates;
mod process;

use std::collections::HashMap;
use std::net::SocketAddr;

use certificates::{AUTHORITY, STRANGER};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use process::peer::Peer;
use process::processor::{Order, Processor};
use process::{Folder, Machinegun, soon};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UBER_TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736:f067aa0ba902b7:0:1";

/// What a collector of the test's own was sent.
struct Collector {
    address: SocketAddr,
    spans: watch::Receiver<Vec<Span>>,
    services: watch::Receiver<Vec<String>>,
}

// === impl Collector ===

impl Collector {
    async fn start() -> Self {
        Self::start_behind(None).await
    }

    /// With TLS, by the certificate of this folder.
    async fn start_secure() -> Self {
        Self::start_behind(Some(certificates::acceptor())).await
    }

    async fn start_behind(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (spans_in, spans) = watch::channel(Vec::new());
        let (services_in, services) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (spans, services) = (spans_in.clone(), services_in.clone());
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => collect(stream, &spans, &services).await,
                        // Whoever does not trust the certificate goes again.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                collect(stream, &spans, &services).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, spans, services }
    }

    /// The first span that this is true of, of those that have come and those that come.
    async fn span(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Span {
        let mut spans = self.spans.clone();
        let found = soon(what, spans.wait_for(|spans| spans.iter().any(&wanted))).await.expect("a collector");
        found.iter().find(|span| wanted(span)).expect("it was there").clone()
    }

    async fn named(&self, name: &str) -> Span {
        self.span(name, |span| span.name == name).await
    }
}

/// Keeps what comes over one connection.
async fn collect(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    spans: &watch::Sender<Vec<Span>>,
    services: &watch::Sender<Vec<String>>,
) {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        assert!(text.starts_with("post /v1/traces "), "{text}");
        assert!(text.contains("content-type: application/x-protobuf"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let end = head + length.trim().parse::<usize>().expect("a number");
        while bytes.len() < end {
            stream.read_buf(&mut bytes).await.expect("the whole body");
        }
        let request = ExportTraceServiceRequest::decode(&bytes[head..end]).expect("a protobuf message");
        bytes.drain(..end);
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            services.send_modify(|services| {
                let names = attributes.iter().filter(|it| it.key == "service.name");
                services.extend(names.map(|it| format!("{:?}", it.value)));
            });
            let new: Vec<Span> = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
            spans.send_modify(|spans| spans.extend(new));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("an answer");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_call_its_processor_and_its_timer_are_one_trace_with_the_right_parents() {
    let (folder, processor, collector) = (Folder::new(), Processor::start(), Collector::start().await);
    let endpoint = format!("http://{}", collector.address);
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let service = Machinegun::start_in(&environment, &folder.configured(processor.address)).await;
    let peer = Peer::of(service.address);
    peer.start("m", &Order::plain("1")).await.expect("started");
    let order = Order { timer: Some(0), ..Order::plain("2") };
    peer.traced("traceparent", TRACEPARENT).call("m", &order).await.expect("called");

    let server = collector.named("server Automaton:Call").await;
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.to_owned(), CLIENT.to_owned()));
    assert_eq!(server.kind, SpanKind::Server as i32);
    let step = collector.named("running machine 'call'").await;
    assert_eq!(step.parent_span_id, server.span_id);
    let attributes: HashMap<_, _> =
        step.attributes.iter().map(|it| (it.key.as_str(), format!("{:?}", it.value))).collect();
    assert!(attributes["mg.machine.ns"].contains("payments") && attributes["mg.machine.id"].contains("m"));
    assert!(step.events.iter().any(|event| event.name == "timer created"), "{:?}", step.events);
    let asked = collector.named("processing machine 'call'").await;
    assert_eq!(asked.parent_span_id, step.span_id);
    let client = collector.named("client Processor:ProcessCall").await;
    assert_eq!((&client.parent_span_id, client.kind), (&asked.span_id, SpanKind::Client as i32));
    let stored =
        collector.span("the commit", |span| span.name == "updating machine" && span.parent_span_id == step.span_id);
    assert_eq!(hex(&stored.await.trace_id), TRACE);

    // The timer, which no request causes.
    let timer = collector.named("running machine 'timeout'").await;
    assert_eq!(hex(&timer.trace_id), TRACE);
    let woken = collector.span("the wake-up", |span| span.span_id == timer.parent_span_id).await;
    assert_eq!(woken.parent_span_id, server.span_id, "the timer hangs on the request that set it");
    let again = collector
        .span("the timer's call", |span| span.name == "client Processor:ProcessSignal" && hex(&span.trace_id) == TRACE);
    let again = again.await;
    let stored =
        collector.span("its commit", |span| span.name == "updating machine" && span.parent_span_id == timer.span_id);
    assert_eq!(hex(&stored.await.trace_id), TRACE);

    // What the processor was told names our client spans.
    let told = |span: &Span| format!("00-{TRACE}-{}-01", hex(&span.span_id));
    let traced = processor.traced();
    for (function, span) in [("ProcessCall", &client), ("ProcessSignal", &again)] {
        let header = (function.to_owned(), "traceparent".to_owned(), told(span));
        assert!(traced.contains(&header), "{header:?} is not in {traced:?}");
    }
    // The log names them too.
    service
        .logged("a line with the trace's id", |line| {
            (line.contains("ProcessCall") && line.contains(&format!("\"otel_trace_id\":\"{TRACE}\""))).then_some(())
        })
        .await;
    assert!(collector.services.borrow().iter().all(|name| name.contains("machinegun")));
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}

#[tokio::test]
async fn spans_go_to_a_collector_over_tls_if_its_certificate_is_trusted() {
    let (folder, processor, collector) = (Folder::new(), Processor::start(), Collector::start_secure().await);
    let endpoint = format!("https://{}", collector.address);
    let [authority, stranger] = [AUTHORITY, STRANGER].map(|name| certificates::file(name).display().to_string());
    let endpoint = &endpoint;
    let trusting = |file| {
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50"), ("SSL_CERT_FILE", file)]
    };
    let config = folder.configured(processor.address);
    // No authority at all, as far as this collector is concerned.
    let service = Machinegun::start_in(&trusting(&stranger), &config).await;
    Peer::of(service.address).start("m", &Order::plain("1")).await.expect("started");
    let said = |line: &str| (line.contains("spans can't be sent") && line.contains("certificate")).then_some(());
    service.logged("why spans are not sent", said).await;
    assert_eq!(collector.spans.borrow().len(), 0);
    service.kill().await;
    let service = Machinegun::start_in(&trusting(&authority), &config).await;
    Peer::of(service.address).call("m", &Order::plain("2")).await.expect("called");
    collector.named("server Automaton:Call").await;
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_of_a_collector_is_refused_at_the_start() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let runner = ["env", "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317"];
    let refused = Machinegun::try_start_under(&runner, &folder.configured(processor.address)).await;
    let said = refused.err().expect("it does not start");
    assert!(said.contains("collector:4317 is neither") && said.contains("http://localhost:4318"), "{said}");
}

#[tokio::test]
async fn a_trace_of_jaegers_own_clients_goes_on_if_it_is_asked_for() {
    let (folder, processor, collector) = (Folder::new(), Processor::start(), Collector::start().await);
    let endpoint = format!("http://{}", collector.address);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_PROPAGATORS", "jaeger"),
        ("OTEL_SERVICE_NAME", "mg-of-this-test"),
    ];
    let service = Machinegun::start_in(&environment, &folder.configured(processor.address)).await;
    Peer::of(service.address)
        .traced("uber-trace-id", UBER_TRACE_ID)
        .start("m", &Order::plain("1"))
        .await
        .expect("started");
    let server = collector.named("server Automaton:Start").await;
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.to_owned(), CLIENT.to_owned()));
    let client = collector.named("client Processor:ProcessSignal").await;
    let told =
        ("ProcessSignal".to_owned(), "uber-trace-id".to_owned(), format!("{TRACE}:{}:0:1", hex(&client.span_id)));
    assert_eq!(processor.traced(), [told]);
    assert!(collector.services.borrow().iter().any(|name| name.contains("mg-of-this-test")));
}

#[tokio::test]
async fn without_traces_their_headers_go_through_as_they_came() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let service = Machinegun::start(&folder.configured(processor.address)).await;
    let peer = Peer::of(service.address).traced("traceparent", TRACEPARENT);
    peer.start("m", &Order::plain("1")).await.expect("started");
    let told = ("ProcessSignal".to_owned(), "traceparent".to_owned(), TRACEPARENT.to_owned());
    assert_eq!(processor.traced(), [told]);
}

#[tokio::test]
async fn a_collector_that_is_down_stops_nothing_and_is_said_once() {
    let (folder, processor) = (Folder::new(), Processor::start());
    // Nobody listens on a port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
    let endpoint = format!("http://{nobody}");
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let service = Machinegun::start_in(&environment, &folder.configured(processor.address)).await;
    let peer = Peer::of(service.address);
    peer.start("m", &Order::plain("1")).await.expect("started");
    service.logged("the failure", |line| line.contains("spans can't be sent").then_some(())).await;
    peer.call("m", &Order::plain("2")).await.expect("called");
}
