//! `/health` and the probes of the real binary.

mod process;

use process::processor::Processor;
use process::{Folder, Machinegun, configuration};
use serde_json::{Value, json};

async fn with(limits: &str) -> (Folder, Machinegun) {
    let (folder, processor) = (Folder::new(), Processor::start());
    let config = configuration(&folder.store(), processor.address) + limits;
    let config = folder.configured_as(&config);
    let service = Machinegun::start(&config).await;
    (folder, service)
}

async fn health(service: &Machinegun) -> (u16, Value) {
    let (status, head, body) = service.get("/health").await;
    assert!(head.contains("cache-control: no-cache") && head.contains("content-type: application/json"), "{head}");
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn health_is_the_service_alone_if_nothing_is_watched() {
    let (_folder, service) = with("").await;
    assert_eq!(health(&service).await, (200, json!({ "service": "machinegun" })));
    for probe in ["startup", "liveness", "readiness"] {
        let (status, _, body) = service.get(&format!("/healthz/{probe}")).await;
        assert_eq!((status, body), (200, format!("{{\"{probe}\":[]}}")));
    }
}

#[tokio::test]
async fn health_fails_past_a_limit_and_probes_do_not() {
    let limits = "limits: {disk: {path: /, value: 0%}, memory: {type: total, value: 100%}}\n";
    let (_folder, service) = with(limits).await;
    let (status, answer) = health(&service).await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!((&answer["disk"]["path"], &answer["disk"]["limit"]), (&json!("/"), &json!(0)));
    let memory = &answer["memory"];
    assert_eq!(memory["limit"], 100);
    assert!(memory["rss"].as_u64() < memory["total"].as_u64(), "{memory}");
    assert_eq!(service.get("/healthz/readiness").await.0, 200);
    assert_eq!(service.get("/metrics").await.0, 200);
}
