//! S82 to S94 without those on connections' lives: HTTP as it may come.

use crate::peer::{Request, STR, STR_REPLY, long_call, text, unhex};
use crate::world::{world, world_with};

fn chunked() -> Request {
    Request::new().unmeasured().with("transfer-encoding", "chunked")
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

#[tokio::test]
async fn s82_chunks() {
    let mut peer = world().await.connect().await;
    let body = unhex(STR);
    for _ in 0..2 {
        peer.send([chunked().body("").bytes(), chunk(&body[..5])].concat()).await;
        peer.send([chunk(&body[5..]), b"0\r\n\r\n".to_vec()].concat()).await;
        peer.answer().await.is_result(STR_REPLY);
    }
}

#[tokio::test]
async fn s83_chunks_and_a_length() {
    let body = [chunk(&unhex(STR)), b"0\r\n\r\n".to_vec()].concat();
    let request = chunked().with("content-length", "3").body(body);
    world().await.exchange(&request).await.is_result(STR_REPLY);
}

#[tokio::test]
async fn s84_lengths_that_are_none() {
    let world = world().await;
    let length = unhex(STR).len().to_string();
    let twice = Request::new().with("content-length", &length);
    let bad = |value: &str| Request::new().unmeasured().with("content-length", value);
    let other = Request::new().unmeasured().with("transfer-encoding", "gzip");
    for request in [twice, bad("abc"), bad("-1"), other] {
        let mut peer = world.connect().await;
        peer.exchange(&request).await.is_bare(&[400]);
        peer.closed().await;
    }
}

#[tokio::test]
async fn s85_expect_continue() {
    let mut peer = world().await.connect().await;
    let request = Request::new().with("expect", "100-continue");
    peer.send(request.head()).await;
    assert_eq!(peer.line().await, "HTTP/1.1 100 Continue");
    peer.send(unhex(STR)).await;
    peer.answer().await.is_result(STR_REPLY);
}

#[tokio::test]
async fn s85_no_continue_where_the_head_is_refused() {
    let mut peer = world().await.connect().await;
    peer.send(Request::new().without("accept").with("accept", "*/*").with("expect", "100-continue").head()).await;
    peer.answer().await.is_unexpected(406, "wrong client accept: */*");
    peer.closed().await;
}

#[tokio::test]
async fn s86_connection_close() {
    let mut peer = world().await.connect().await;
    let answer = peer.exchange(&Request::new().with("connection", "close")).await;
    answer.is_result(STR_REPLY);
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    peer.closed().await;
}

#[tokio::test]
async fn s87_versions_and_host() {
    let world = world().await;
    let mut peer = world.connect().await;
    peer.exchange(&Request::new().line("POST /v1/svc HTTP/1.0").without("host")).await.is_result(STR_REPLY);
    peer.closed().await;
    let no_host = Request::new().without("host");
    let future = Request::new().line("POST /v1/svc HTTP/1.2");
    for (request, statuses) in [(no_host, [400, 400]), (future, [505, 400])] {
        let mut peer = world.connect().await;
        peer.exchange(&request).await.is_bare(&statuses);
        peer.closed().await;
    }
}

#[tokio::test]
async fn http_10_keeps_alive_where_asked() {
    let mut peer = world().await.connect().await;
    let request = Request::new().line("POST /v1/svc HTTP/1.0").with("connection", "keep-alive");
    for _ in 0..2 {
        peer.exchange(&request).await.is_result(STR_REPLY);
    }
}

#[tokio::test]
async fn trace_and_connect_are_not_implemented() {
    let world = world().await;
    for line in ["TRACE /v1/svc HTTP/1.1", "CONNECT localhost:1 HTTP/1.1"] {
        let mut peer = world.connect().await;
        peer.send(Request::new().line(line).body("").bytes()).await;
        peer.answer().await.is_bare(&[501]);
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_long_request_line() {
    let world = world().await;
    world.exchange(&Request::new().path(&format!("/v1/svc?{}", "x".repeat(7000)))).await.is_ok();
    for length in [8000, 70_000] {
        let mut peer = world.connect().await;
        peer.exchange(&Request::new().path(&format!("/v1/svc?{}", "x".repeat(length)))).await.is_bare(&[414]);
        peer.closed().await;
    }
}

#[tokio::test]
async fn s88_pipelined_requests_are_answered_in_order() {
    let mut world = world().await;
    let mut peer = world.connect().await;
    let requests = ["wait", "b", "c"].map(|word| Request::new().call("Str", &text(word)).bytes());
    peer.send(requests.concat()).await;
    world.seen().await;
    world.open();
    for word in ["wait", "b", "c"] {
        let answer = peer.answer().await;
        answer.is_ok();
        assert!(answer.body.ends_with(format!("{word}\0").as_bytes()), "{word}");
    }
}

#[tokio::test]
async fn s89_a_body_of_10_mb() {
    let answer = world().await.exchange(&Request::new().body(long_call(10_000_000))).await;
    answer.is_ok();
    assert_eq!(answer.body.len(), 10_000_000 + 23);
}

#[tokio::test]
async fn a_body_past_the_limit() {
    let mut world = world_with(|settings| settings.max_body_size = 100).await;
    let reason = "body larger than 100 bytes (woody_server.max_body_size)";
    let fits = |size: usize| Request::new().call("Str", &text(&"x".repeat(size - 23)));
    world.exchange(&fits(100)).await.is_ok();
    world.seen().await;
    // A length that says so is refused before a byte of the body is there; what comes later is skipped.
    let mut peer = world.connect().await;
    peer.send(fits(101).head()).await;
    peer.answer().await.is_unexpected(400, reason);
    peer.send(&fits(101).bytes()[fits(101).head().len()..]).await;
    peer.exchange(&fits(100)).await.is_ok();
    world.seen().await;
    let mut peer = world.connect().await;
    peer.send(Request::new().unmeasured().with("content-length", "99999999999999999999").head()).await;
    peer.answer().await.is_bare(&[400]);
    let mut peer = world.connect().await;
    peer.send(Request::new().unmeasured().with("content-length", "9999999999").head()).await;
    peer.answer().await.is_unexpected(400, reason);
    peer.closed().await;
    // Chunks are counted as they come.
    let mut peer = world.connect().await;
    peer.send([chunked().body("").bytes(), chunk(&[0x80; 60]), chunk(&[0x80; 60])].concat()).await;
    peer.answer().await.is_unexpected(400, reason);
    peer.try_send(chunk(&[0; 100_000])).await;
    peer.closed().await;
    world.nothing_was_called();
}

#[tokio::test]
async fn s94_plain_routes_know_no_woody() {
    let world = world().await;
    let bare = |line: &str| Request::new().line(line).map_names(|name| name.replace("woody.", "x-"));
    let lines = ["POST /health", "GET /health", "GET /metrics", "GET /healthz/startup", "DELETE /health?x"];
    for line in lines {
        let mut peer = world.connect().await;
        let request = bare(&format!("{line} HTTP/1.1")).without("content-type").without("accept");
        // With a body that the route does not read, too.
        for request in [request.clone().body(""), request.clone(), request.unmeasured().body("")] {
            let answer = peer.exchange(&request).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b"plain"[..]), "{line}");
        }
    }
    world.exchange(&bare("GET /healthz HTTP/1.1")).await.is_bare(&[404]);
    world.exchange(&bare("GET /metrics/x HTTP/1.1")).await.is_bare(&[404]);
}
