//! S44 to S62: bodies, paths and the message around the arguments.

use crate::peer::{Request, STR, STR_REPLY, message, text, unhex};
use crate::world::world;

#[tokio::test]
async fn s44_an_empty_body() {
    let world = world().await;
    let empty = Request::new().body("");
    let chunked = empty.clone().unmeasured().with("transfer-encoding", "chunked").body("0\r\n\r\n");
    for request in [empty.clone(), empty.unmeasured(), chunked] {
        let mut peer = world.connect().await;
        peer.exchange(&request).await.is_unexpected(400, "body empty");
        peer.exchange(&Request::new()).await.is_ok();
    }
}

#[tokio::test]
async fn s45_s47_paths_that_lead_nowhere() {
    let world = world().await;
    for path in ["/v1/nope", "//v1/svc", "/v1/SVC", "/", "/v1/svc//"] {
        world.exchange(&Request::new().path(path)).await.is_bare(&[404]);
    }
    // The path is looked at before anything else.
    let nothing = Request::new().line("GET /v1/nope HTTP/1.1").without("content-type").body("");
    world.exchange(&nothing).await.is_bare(&[404]);
}

#[tokio::test]
async fn s46_other_spellings_of_a_path() {
    let world = world().await;
    for path in ["/v1/svc/", "/v1/svc?x=1", "/v1/s%76c", "http://localhost/v1/svc", "/v1/./x/../svc"] {
        world.exchange(&Request::new().path(path)).await.is_result(STR_REPLY);
    }
}

#[tokio::test]
async fn s48_a_bad_escape() {
    world().await.exchange(&Request::new().path("/v1/%zz")).await.is_bare(&[400]);
}

#[tokio::test]
async fn s49_s50_unknown_functions() {
    let world = world().await;
    for name in ["NopeXYZ", "Start", "str", ""] {
        let answer = world.exchange(&Request::new().call(name, "00")).await;
        answer.is_unexpected(400, format!("thrift: unknown function: {name}").trim_end());
    }
}

#[tokio::test]
async fn s51_multiplexing() {
    let world = world().await;
    for name in ["Svc:Str", ":"] {
        let answer = world.exchange(&Request::new().call(name, "00")).await;
        answer.is_unexpected(400, "thrift: multiplexing (not supported)");
    }
}

#[tokio::test]
async fn s52_s53_no_strict_message() {
    let world = world().await;
    let framed = [unhex("00000019"), unhex(STR)].concat();
    let bodies = [
        unhex("00000003537472 01 00000000 0b000100000002686900"),
        framed,
        vec![0; 20],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        br#"[1,"Str",1,0,{"1":{"str":"hi"}}]"#.to_vec(),
    ];
    for body in bodies {
        let answer = world.exchange(&Request::new().body(body)).await;
        answer.is_unexpected(400, "thrift: no binary protocol version");
    }
}

#[tokio::test]
async fn s54_s55_another_version() {
    let world = world().await;
    let table =
        [("8002000100000003537472000000000b000100000002686900", "-2147352575"), ("8221010353747200", "-2111766269")];
    for (body, version) in table {
        let answer = world.exchange(&Request::new().body(unhex(body))).await;
        answer.is_unexpected(400, &format!("thrift: bad binary protocol version: {version}"));
    }
}

#[tokio::test]
async fn s56_the_byte_above_the_type_is_nothing() {
    let body = STR.replacen("80010001", "8001ff01", 1);
    world().await.exchange(&Request::new().body(unhex(&body))).await.is_result(STR_REPLY);
}

#[tokio::test]
async fn s57_other_message_types() {
    let world = world().await;
    for kind in [2, 3, 0, 5, 255] {
        let answer = world.exchange(&Request::new().body(message(kind, "Str", 0, &text("hi")))).await;
        answer.is_unexpected(400, &format!("thrift: unknown message type: {kind}"));
    }
}

#[tokio::test]
async fn s58_s59_either_side_can_say_oneway() {
    let mut world = world().await;
    for (kind, name) in [(4, "Str"), (1, "One")] {
        world.exchange(&Request::new().body(message(kind, name, 0, &text("wait")))).await.is_result("");
        assert_eq!(world.seen().await.name, name);
        world.open();
        world.done().await;
    }
}

#[tokio::test]
async fn s60_s61_a_message_cut_off_anywhere() {
    let mut world = world().await;
    let whole = unhex(STR);
    let mut peer = world.connect().await;
    for length in 1..whole.len() {
        let answer = peer.exchange(&Request::new().body(&whole[..length])).await;
        answer.is_error_like(400, "Result Unexpected", "thrift decode error: ");
    }
    world.nothing_was_called();
}

#[tokio::test]
async fn s62_nothing_may_follow() {
    let mut world = world().await;
    for more in ["\0", "abc"] {
        let answer = world.exchange(&Request::new().body([&unhex(STR)[..], more.as_bytes()].concat())).await;
        answer.is_error_like(400, "Result Unexpected", "thrift decode error: ");
    }
    world.nothing_was_called();
}
