//! A DynamoDB API that lacks something: what it lacks is answered here, the rest is passed on.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What is lacking. By default nothing is.
#[derive(Clone, Debug, Default)]
pub struct Lacks {
    /// Operations, and the error that each is answered.
    pub operations: HashMap<&'static str, &'static str>,
    /// As ScyllaDB's Alternator is: no transactions, no items in failed conditions, names of its own, and this value in the
    /// tag that says how conditions are kept, if there is one.
    pub alternator: Option<Option<&'static str>>,
}

// === impl Lacks ===

impl Lacks {
    pub fn operation(name: &'static str, error: &'static str) -> Self {
        Self { operations: HashMap::from([(name, error)]), ..Self::default() }
    }

    pub fn as_alternator(isolation: Option<&'static str>) -> Self {
        let unknown = ["TransactWriteItems", "TransactGetItems"].map(|name| (name, "UnknownOperationException"));
        Self { operations: HashMap::from(unknown), alternator: Some(isolation) }
    }
}

/// Listens before the service for as long as the runtime lives; its address.
pub async fn before(service: &str, lacks: Lacks) -> String {
    let service: SocketAddr =
        service.trim_start_matches("http://").parse().expect("these tests need a service at a plain address");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (lacks, forward) = (Arc::new(lacks), Client::builder(TokioExecutor::new()).build_http());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (lacks, forward) = (lacks.clone(), forward.clone());
            tokio::spawn(async move {
                let pass = service_fn(|request| pass(request, service, &forward, &lacks));
                // Ends with the peer's hang-up.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await;
            });
        }
    });
    endpoint
}

async fn pass(
    request: Request<Incoming>,
    service: SocketAddr,
    forward: &Client<HttpConnector, Full<Bytes>>,
    lacks: &Lacks,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (mut head, body) = request.into_parts();
    let asked = body.collect().await.expect("a request's body").to_bytes();
    let target = head.headers["x-amz-target"].to_str().expect("an operation").to_owned();
    let operation = target.rsplit('.').next().unwrap_or_default();
    if let Some(error) = lacks.operations.get(operation) {
        let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{error}"), "message": "not here" });
        return Ok(answer(400, &body));
    }
    let mut question: Value = serde_json::from_slice(&asked).expect("a request in JSON");
    if let (Some(isolation), "ListTagsOfResource") = (lacks.alternator, operation) {
        let tags: Vec<_> =
            isolation.iter().map(|value| json!({ "Key": "system:write_isolation", "Value": value })).collect();
        return Ok(answer(200, &json!({ "Tags": tags })));
    }
    if lacks.alternator.is_some()
        && let Some(question) = question.as_object_mut()
    {
        question.remove("ReturnValuesOnConditionCheckFailure");
    }
    head.uri = format!("http://{service}/").parse().expect("an address");
    head.headers.remove(http::header::CONTENT_LENGTH);
    let passed = Request::from_parts(head, Full::new(Bytes::from(question.to_string())));
    let (head, body) = forward.request(passed).await.expect("the service answers").into_parts();
    let mut body: Value =
        serde_json::from_slice(&body.collect().await.expect("an answer's body").to_bytes()).expect("an answer in JSON");
    if lacks.alternator.is_some()
        && let Some(arn) = body.pointer_mut("/Table/TableArn")
    {
        *arn = json!("arn:scylla:alternator:keyspace:scylla:table/name");
    }
    Ok(answer(head.status.as_u16(), &body))
}

fn answer(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    response.body(Full::new(Bytes::from(body.to_string()))).expect("an answer")
}
