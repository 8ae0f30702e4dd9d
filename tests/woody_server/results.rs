//! S1 to S16: results and failures of handlers.

use crate::peer::{Request, STR_REPLY, message, text};
use crate::world::world;

const DET: &str = "det";

#[tokio::test]
async fn s01_a_result_is_the_recorded_bytes() {
    world().await.exchange(&Request::new()).await.is_result(STR_REPLY);
}

#[tokio::test]
async fn s02_the_sequence_number_comes_back() {
    let world = world().await;
    for (seqid, expected) in [(77, "0000004d"), (-1, "ffffffff")] {
        let answer = world.exchange(&Request::new().body(message(1, "Str", seqid, &text("hi")))).await;
        answer.is_result(&format!("8001000200000003537472{expected}0b000000000002686900"));
    }
}

#[tokio::test]
async fn s03_a_void_result_is_an_empty_struct() {
    let request = Request::new().call("Void", &text("x"));
    world().await.exchange(&request).await.is_result("8001000200000004566f69640000000000");
}

#[tokio::test]
async fn s04_oneway_is_answered_before_its_handler_ends() {
    let mut world = world().await;
    let request = Request::new().body(message(4, "One", 0, &text("wait")));
    world.exchange(&request).await.is_result("");
    world.seen().await;
    world.open();
    assert_eq!(world.done().await, "wait");
}

#[tokio::test]
async fn s05_no_args_and_unknown_ones() {
    let world = world().await;
    for args in ["00", "0b0007000000017800"] {
        let answer = world.exchange(&Request::new().call("NoArgs", args)).await;
        answer.is_result("80010002000000064e6f41726773000000000a0000000000000000000700");
    }
}

#[tokio::test]
async fn s06_a_declared_exception_is_a_business_error() {
    let answer = world().await.exchange(&Request::new().call("Str", &text("fail why"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("woody.error-class").as_deref(), Some("Business Error"));
    assert_eq!(answer.header("woody.error-reason").as_deref(), Some("Fail"));
    assert_eq!(answer.header("content-type").as_deref(), Some("application/x-thrift"));
    let expected = "8001000200000003537472000000000c00010b0001000000037768790000";
    assert_eq!(crate::peer::hex(&answer.body), expected);
}

#[tokio::test]
async fn s07_to_s12_each_error_has_its_status_and_class() {
    let world = world().await;
    let table = [
        ("internal unexpected", 500, "Result Unexpected"),
        ("internal unavailable", 503, "Resource Unavailable"),
        ("internal unknown", 504, "Result Unknown"),
        ("external unexpected", 502, "Result Unexpected"),
        ("external unavailable", 502, "Resource Unavailable"),
        ("external unknown", 502, "Result Unknown"),
    ];
    for (error, status, class) in table {
        let answer = world.exchange(&Request::new().call("Str", &text(&format!("error {error} {DET}")))).await;
        answer.is_error(status, class, DET);
    }
}

#[tokio::test]
async fn s13_a_panic_is_an_answer_and_takes_nobody_with_it() {
    let mut peer = world().await.connect().await;
    let answer = peer.exchange(&Request::new().call("Str", &text("panic"))).await;
    answer.is_error_like(500, "Result Unexpected", "handler panicked: the handler panics");
    peer.exchange(&Request::new()).await.is_result(STR_REPLY);
}

#[tokio::test]
async fn s14_a_oneway_failure_is_invisible() {
    let mut world = world().await;
    for failure in ["error internal unexpected det", "panic"] {
        world.exchange(&Request::new().body(message(4, "One", 0, &text(failure)))).await.is_result("");
        world.seen().await;
    }
}

#[tokio::test]
async fn s15_a_reason_never_splits_the_headers() {
    let request = Request::new().call("Str", &text("error internal unavailable a\r\nwoody.error-class: b\r\n\r\nc"));
    let mut peer = world().await.connect().await;
    let answer = peer.exchange(&request).await;
    answer.is_error(503, "Resource Unavailable", "a  woody.error-class: b    c");
    peer.exchange(&Request::new()).await.is_ok();
}

#[tokio::test]
async fn s16_a_reason_keeps_its_utf8() {
    let answer = world().await.exchange(&Request::new().call("Str", &text("error internal unavailable причина"))).await;
    answer.is_error(503, "Resource Unavailable", "причина");
}

#[tokio::test]
async fn a_long_reason_is_cut() {
    let long = format!("error internal unavailable {}", "д".repeat(10_000));
    let answer = world().await.exchange(&Request::new().call("Str", &text(&long))).await;
    answer.is_error(503, "Resource Unavailable", &"д".repeat(2048));
}
