//! What each reply, and the lack of one, means.

use std::net::SocketAddr;
use std::time::Duration;

use machinegun::wire::{Limits, Method, Void, read_reply};
use machinegun::woody::{Class, Error, Source};
use machinegun::{thrift_methods, thrift_struct};
use socket2::{Domain, Socket, Type};

use crate::script::*;

thrift_struct! {
    pub struct NoArgs {}
}

thrift_methods! {
    Str = "Str" (NoArgs) -> bytes::Bytes, throws { 1 => "MachineFailed" };
    VoidCall = "Void" (NoArgs) -> Void;
}

type Outcome = (Source, Class);
const INTERNAL_UNEXPECTED: Outcome = (Source::Internal, Class::ResultUnexpected);
const INTERNAL_UNAVAILABLE: Outcome = (Source::Internal, Class::ResourceUnavailable);
const INTERNAL_UNKNOWN: Outcome = (Source::Internal, Class::ResultUnknown);
const UNEXPECTED: Outcome = (Source::External, Class::ResultUnexpected);
const UNAVAILABLE: Outcome = (Source::External, Class::ResourceUnavailable);
const UNKNOWN: Outcome = (Source::External, Class::ResultUnknown);

const NO_REASON: &str = "This server does not implement the woody protocol ('woody.error-reason' header missing).";

#[track_caller]
fn failed(outcome: Result<bytes::Bytes, Error>, (source, class): Outcome, details: &str) {
    let error = outcome.expect_err("a failure");
    assert_eq!((error.source, error.class), (source, class), "{error}");
    assert!(error.details.starts_with(details), "{error}");
}

#[track_caller]
fn succeeded(outcome: Result<bytes::Bytes, Error>) {
    assert_eq!(outcome.expect("a result"), unhex(RESULT));
}

/// The result struct as a caller reads it.
fn read<M: Method>(outcome: Result<bytes::Bytes, Error>) -> Result<bool, machinegun::wire::Error> {
    read_reply::<M>(outcome.expect("a result struct"), Limits::default()).map(|result| result.is_ok())
}

#[tokio::test]
async fn c01_the_request_to_the_letter() {
    let script = Script::new().await;
    let peer = async {
        let mut taken = script.take().await;
        let request = taken.request().await;
        taken.send(ok(REPLY)).await;
        request
    };
    let (outcome, (head, body)) = tokio::join!(script.call(), peer);
    succeeded(outcome);
    assert_eq!(body, unhex(CALL));
    let mut lines: Vec<_> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/processor HTTP/1.1");
    let host = format!("host: {}", script.address);
    let span = lines.iter().find_map(|line| line.strip_prefix("woody.span-id: ")).expect("a span id").to_owned();
    assert!(span.parse::<u64>().is_ok_and(|id| id > 0), "{span}");
    let span = format!("woody.span-id: {span}");
    let mut expected = [
        host.as_str(),
        "user-agent: machinegun",
        "content-type: application/x-thrift",
        "accept: application/x-thrift",
        "woody.trace-id: TR",
        &span,
        "woody.parent-id: SP",
        "woody.deadline: 2030-01-01T00:00:01.500Z",
        "woody.meta.user-identity.id: u1",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "baggage: k=v+w",
        "content-length: 32",
    ];
    expected.sort_unstable();
    lines.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn c02_c03_results() {
    let script = Script::new().await;
    succeeded(script.answered(ok(REPLY)).await);
    succeeded(script.answered(response("200 OK", &[], &unhex(REPLY))).await);
    succeeded(script.answered(response("200 OK", &["content-type: application/json"], &unhex(REPLY))).await);
    succeeded(script.answered(ok(&REPLY.replacen("537472", "586586", 1))).await);
}

#[tokio::test]
async fn c04_to_c13_replies_that_are_none() {
    let script = Script::new().await;
    let table = [
        // C4, C5, C7: another sequence number, not strict, empty.
        ("8001000200000003537472000000010b000000000002686900", "client thrift error: bad sequence id 1"),
        ("0000000353747202000000000b000000000002686900", "client thrift error: thrift: no binary protocol version"),
        ("", "client error: empty reply"),
        ("80010002000000", "client thrift error: thrift decode error: "),
        // C12: a call.
        (&CALL.replacen("80010001", "80010004", 1), "client error: "),
        (CALL, "client error: "),
    ];
    for (body, details) in table {
        failed(script.answered(ok(body)).await, INTERNAL_UNEXPECTED, details);
    }
    // C13: TApplicationException{"boom", 7}.
    let outcome = script.answered(ok("8001000300000003537472000000000b000100000004626f6f6d0800020000000700")).await;
    failed(
        outcome,
        UNEXPECTED,
        "server violated thrift protocol: sent TApplicationException (boom) with http code 200",
    );
}

#[tokio::test]
async fn c06_to_c11_results_that_the_caller_refuses() {
    let script = Script::new().await;
    let envelope = "800100020000000353747200000000";
    let both = "0b0000000000016100".strip_suffix("00").expect("a stop byte").to_owned() + "0c00010000";
    for body in ["0b00000000000268690061 61".replace(' ', ""), "0b0000000000ff".into(), "00".into(), both] {
        let outcome = script.answered(ok(&format!("{envelope}{body}"))).await;
        assert!(read::<Str>(outcome).is_err(), "{body}");
    }
    assert_eq!(read::<VoidCall>(script.answered(ok(&format!("{envelope}00"))).await), Ok(true));
}

#[tokio::test]
async fn c14_c15_the_body_alone_decides() {
    let script = Script::new().await;
    let exception = unhex("8001000200000003537472000000000c00010000");
    let headers: [&[&str]; 3] = [
        &["woody.error-class: Business Error", "woody.error-reason: MachineFailed"],
        &[],
        &["woody.error-class: Result Unexpected", "woody.error-reason: x"],
    ];
    for headers in headers {
        let outcome = script.answered(response("200 OK", headers, &exception)).await;
        assert_eq!(read::<Str>(outcome), Ok(false));
    }
    succeeded(script.answered(response("200 OK", &["woody.error-class: Business Error"], &unhex(REPLY))).await);
}

#[tokio::test]
async fn c16_c17_every_other_status_is_unexpected() {
    let script = Script::new().await;
    for status in ["201", "301", "400", "404", "429", "500", "501", "599"] {
        let location = format!("location: http://{}/elsewhere", script.address);
        failed(script.answered(response(&format!("{status} X"), &[&location], b"")).await, UNEXPECTED, NO_REASON);
    }
    failed(script.answered("HTTP/1.1 204 No Content\r\n\r\n").await, UNEXPECTED, NO_REASON);
    let headers = ["woody.error-class: Resource Unavailable", "woody.error-reason: det"];
    failed(script.answered(response("500 X", &headers, b"")).await, UNEXPECTED, "det");
    script.nobody_came().await;
}

#[tokio::test]
async fn c18_to_c22_a_502_says_its_class() {
    const BAD: &str = "reason unknown due to bad woody.-error- headers";
    let script = Script::new().await;
    let table: [(&[&str], _, &str); 12] = [
        (&["woody.error-class: Result Unexpected", "woody.error-reason: det"], UNEXPECTED, "det"),
        (&["woody.error-class: Resource Unavailable", "woody.error-reason: det"], UNAVAILABLE, "det"),
        (&["woody.error-class: Result Unknown", "woody.error-reason: det"], UNKNOWN, "det"),
        (&["woody.error-class: resource UNAVAILABLE", "woody.error-reason: det"], UNAVAILABLE, "det"),
        (&["woody.error-class: Business Error", "woody.error-reason: det"], UNEXPECTED, BAD),
        (&["woody.error-class: foo", "woody.error-reason: det"], UNEXPECTED, BAD),
        (&[], UNEXPECTED, NO_REASON),
        (&["woody.error-reason: det"], UNEXPECTED, "det"),
        (&["woody.error-class: result unknown"], UNKNOWN, NO_REASON),
        (&["WOODY.ERROR-CLASS: Result Unknown", "WOODY.ERROR-REASON: det"], UNKNOWN, "det"),
        (&["x-rbk-error-class: Result Unknown"], UNEXPECTED, NO_REASON),
        (&["woody.error-class: Result Unknown", "woody.error-reason: a", "woody.error-reason: b"], UNKNOWN, "a"),
    ];
    for (headers, outcome, details) in table {
        failed(script.answered(response("502 Bad Gateway", headers, b"")).await, outcome, details);
    }
}

#[tokio::test]
async fn c23_to_c25_a_503_and_a_504_need_no_class() {
    let script = Script::new().await;
    let contrary = ["woody.error-class: Result Unexpected", "woody.error-reason: det"];
    for (status, outcome) in [("503 X", UNAVAILABLE), ("504 X", UNKNOWN)] {
        failed(script.answered(response(status, &contrary, b"")).await, outcome, "det");
        failed(script.answered(response(status, &["content-type: text/html"], b"<html>")).await, outcome, NO_REASON);
        failed(script.answered(response(status, &[], b"")).await, outcome, NO_REASON);
        let error = script.answered(response(status, &["woody.error-reason:"], b"")).await.expect_err("a failure");
        assert_eq!(error.details, "");
        for long in ["x".repeat(20_000), "причина".to_owned()] {
            let reason = format!("woody.error-reason: {long}");
            failed(script.answered(response(status, &[&reason], b"")).await, outcome, &long);
        }
    }
}

#[tokio::test]
async fn a_reason_that_splits_the_headers_leaves_the_status_its_meaning() {
    let broken = [
        "woody.error-reason: {badmatch,\n foo}",
        "woody.error-reason: {badmatch,\r\n foo}",
        "woody.error-reason: {badmatch,\r\nfoo}",
        "woody.error-reason: a\x1b[1mb",
        "woody.error-reason: a\x7fb",
        "woody.error-reason : a",
        "no colon at all",
    ];
    for header in broken {
        let script = Script::new().await;
        for (status, outcome) in [("503 X", UNAVAILABLE), ("504 X", UNKNOWN)] {
            failed(script.answered(response(status, &[header], b"")).await, outcome, "");
        }
        let unknown = ["woody.error-class: Result Unknown", header];
        failed(script.answered(response("502 X", &unknown, b"")).await, UNKNOWN, "");
        succeeded(script.answered(response("200 OK", &[header], &unhex(REPLY))).await);
    }
}

#[tokio::test]
async fn c26_to_c28_no_head_of_a_reply() {
    failed(Script::new().await.answered("").await, UNKNOWN, "closed");
    failed(Script::new().await.left_alone("").await, UNKNOWN, "timeout");
    failed(Script::new().await.left_alone("HTTP/1.1 200 OK\r\ncontent-").await, UNKNOWN, "timeout");
}

#[tokio::test]
async fn c29_c30_a_reply_that_breaks_off() {
    let partial = [&b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"[..], &[0x80, 1, 0]].concat();
    failed(Script::new().await.left_alone(&partial).await, INTERNAL_UNKNOWN, "parse http response body error");
    failed(Script::new().await.answered(&partial).await, INTERNAL_UNKNOWN, "parse http response body error");
}

#[tokio::test]
async fn c31_other_framings() {
    let script = Script::new().await;
    let body = unhex(REPLY);
    let until_close = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &body].concat();
    let old = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &body].concat();
    let chunked = [
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n"[..],
        &body[..5],
        format!("\r\n{:x}\r\n", body.len() - 5).as_bytes(),
        &body[5..],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    for reply in [until_close, old, chunked] {
        succeeded(script.answered(reply).await);
    }
}

#[tokio::test]
async fn c32_no_http() {
    failed(Script::new().await.answered("SSH-2.0-x\r\n\r\n").await, INTERNAL_UNEXPECTED, "bad_request");
}

#[tokio::test]
async fn c33_nobody_to_call() {
    let script = Script::new().await;
    // A port that was free a moment ago, and that nobody listens on.
    let url = {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        format!("http://{}/", gone.local_addr().expect("an address"))
    };
    failed(script.call_to(&url).await, INTERNAL_UNAVAILABLE, "econnrefused");
    failed(script.call_to("http://nowhere.invalid/").await, INTERNAL_UNAVAILABLE, "{resolve_failed,nxdomain");
    failed(script.call_to("nowhere").await, INTERNAL_UNAVAILABLE, "unsupported_url_scheme");
    failed(script.call_to("https://localhost/").await, INTERNAL_UNAVAILABLE, "https is not spoken here");
}

/// The reference says unknown here, by accident: nothing was sent.
#[tokio::test]
async fn c34_a_syn_that_nobody_answers() {
    let script = Script::new().await;
    let connecting = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let full = connecting();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    full.listen(0).expect("it listens");
    let address = full.local_addr().expect("an address");
    // Nobody accepts, and the queue has one place: the kernel drops what comes after.
    let waiting = [connecting(), connecting(), connecting()];
    for socket in &waiting {
        socket.set_nonblocking(true).expect("a socket that does not block");
        let _ = socket.connect(&address);
    }
    let url = format!("http://{}/", address.as_socket().expect("an address"));
    let mut calling = std::pin::pin!(script.call_to(&url));
    for _ in 0..1000 {
        assert!(futures_util::poll!(calling.as_mut()).is_pending(), "somebody answered");
        tokio::task::yield_now().await;
    }
    // A fifth of what is left to the deadline.
    script.hand.advance(Duration::from_millis(299));
    assert!(futures_util::poll!(calling.as_mut()).is_pending());
    script.hand.advance(Duration::from_millis(1));
    failed(calling.await, INTERNAL_UNAVAILABLE, "connect_timeout");
}

#[tokio::test]
async fn c36_a_deadline_that_passed() {
    let script = Script::new().await;
    script.hand.advance(Duration::from_millis(1500));
    failed(script.call().await, INTERNAL_UNAVAILABLE, "deadline reached");
    script.nobody_came().await;
}

#[tokio::test]
async fn c37_without_a_deadline_a_reply_has_five_seconds() {
    let script = Script::new().await;
    let url = format!("http://{}/", script.address).parse().expect("a url");
    let context = context();
    let peer = async {
        let mut taken = script.take().await;
        let (head, _) = taken.request().await;
        script.hand.advance(Duration::from_millis(4_999));
        tokio::task::yield_now().await;
        assert!(!taken.has_ended().await, "given up too early");
        script.hand.advance(Duration::from_millis(1));
        taken.closed().await;
        head
    };
    let (outcome, head) = tokio::join!(script.client.call(&url, &context, None, unhex(CALL).into()), peer);
    failed(outcome, UNKNOWN, "timeout");
    assert!(!head.contains("woody.deadline"), "{head}");
}

#[tokio::test]
async fn c40_extra_headers_mean_nothing() {
    let headers = [
        "content-type: application/x-thrift",
        "woody.trace-id: TR",
        "woody.span-id: x",
        "woody.deadline: 2030-01-01T00:00:01.500Z",
        "traceparent: x",
    ];
    succeeded(Script::new().await.answered(response("200 OK", &headers, &unhex(REPLY))).await);
}

#[tokio::test]
async fn a_reply_past_the_limit() {
    let script = Script::with(|settings| settings.max_response_size = 10).await;
    failed(script.answered(ok(REPLY)).await, INTERNAL_UNEXPECTED, "reply larger than 10 bytes");
}

#[tokio::test]
async fn empty_ids_are_never_passed_on() {
    let script = Script::new().await;
    let url = format!("http://{}/", script.address).parse().expect("a url");
    let peer = async {
        let mut taken = script.take().await;
        let (head, _) = taken.request().await;
        taken.send(ok(REPLY)).await;
        head
    };
    let context = machinegun::woody::Context::default();
    let (outcome, head) = tokio::join!(script.client.call(&url, &context, Some(DEADLINE), unhex(CALL).into()), peer);
    succeeded(outcome);
    assert!(head.lines().any(|line| line == "woody.parent-id: undefined"), "{head}");
    let trace = head.lines().find_map(|line| line.strip_prefix("woody.trace-id: ")).expect("a trace id");
    assert!(trace.parse::<u64>().is_ok_and(|id| id > 0), "{head}");
}
