//! S17 to S43: the header checks, each and in their order.

use std::time::Duration;

use crate::peer::{Request, STR_REPLY};
use crate::world::{NOW, world};
use machinegun::woody::format_deadline;

#[tokio::test]
async fn s17_only_post() {
    let mut world = world().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "FOO"] {
        let mut peer = world.connect().await;
        peer.send(Request::new().line(&format!("{method} /v1/svc HTTP/1.1")).bytes()).await;
        let answer = peer.answer_to(method).await;
        answer.is_unexpected(405, &format!("wrong method: {method}"));
        assert_eq!(answer.header("allow").as_deref(), Some("POST"));
        // The body that nobody read is skipped: the connection goes on.
        peer.exchange(&Request::new()).await.is_result(STR_REPLY);
        world.seen().await;
    }
    world.nothing_was_called();
}

#[tokio::test]
async fn s18_content_type_is_required() {
    let answer = world().await.exchange(&Request::new().without("content-type")).await;
    answer.is_unexpected(415, "wrong content type: undefined");
}

#[tokio::test]
async fn s19_content_type_is_exact() {
    let world = world().await;
    for value in ["application/x-thrift; charset=utf-8", "Application/X-Thrift", "application/json", ""] {
        let answer = world.exchange(&Request::new().replace("content-type", value)).await;
        // The blank before nothing is not part of a header's value.
        answer.is_unexpected(415, format!("wrong content type: {value}").trim_end());
    }
}

#[tokio::test]
async fn s20_blanks_around_content_type_are_not_part_of_it() {
    world().await.exchange(&Request::new().replace("content-type", "  application/x-thrift\t ")).await.is_ok();
}

#[tokio::test]
async fn s21_accept_is_optional() {
    world().await.exchange(&Request::new().without("accept")).await.is_ok();
}

#[tokio::test]
async fn s22_accept_is_exact() {
    let world = world().await;
    for value in ["*/*", "application/x-thrift, */*", "APPLICATION/X-THRIFT", ""] {
        let answer = world.exchange(&Request::new().replace("accept", value)).await;
        answer.is_unexpected(406, format!("wrong client accept: {value}").trim_end());
    }
}

const IDS: [&str; 3] = ["woody.trace-id", "woody.span-id", "woody.parent-id"];

#[tokio::test]
async fn s23_each_id_is_required() {
    let world = world().await;
    for id in IDS {
        world.exchange(&Request::new().without(id)).await.is_unexpected(400, "bad woody. id header");
    }
}

#[tokio::test]
async fn s24_s25_ids_may_be_empty_and_64_bytes_long() {
    let mut world = world().await;
    for id in IDS {
        for value in [String::new(), "x".repeat(64)] {
            world.exchange(&Request::new().replace(id, &value)).await.is_ok();
            let context = world.seen().await.context;
            let ids = [context.trace_id, context.span_id, context.parent_id];
            let expected = IDS.map(|other| match other {
                _ if other == id => value.clone(),
                "woody.trace-id" => "t".to_owned(),
                "woody.span-id" => "s".to_owned(),
                _ => "p".to_owned(),
            });
            assert_eq!(ids, expected);
        }
    }
}

#[tokio::test]
async fn s26_longer_ids_are_as_bad_as_none() {
    let world = world().await;
    for id in IDS {
        let answer = world.exchange(&Request::new().replace(id, "x".repeat(65))).await;
        answer.is_unexpected(400, "bad woody. id header");
    }
}

#[tokio::test]
async fn s27_header_names_have_no_case() {
    let upper = Request::new().map_names(str::to_uppercase);
    let mixed = Request::new().map_names(|name| name.replace("woody", "Woody").replace("id", "Id"));
    let world = world().await;
    for request in [upper, mixed] {
        world.exchange(&request).await.is_ok();
    }
}

#[tokio::test]
async fn s28_repeated_ids_are_joined() {
    let mut world = world().await;
    world.exchange(&Request::new().with("woody.trace-id", "t2")).await.is_ok();
    assert_eq!(world.seen().await.context.trace_id, "t, t2");
}

#[tokio::test]
async fn s29_the_old_names_are_not_read() {
    let request = Request::new().map_names(|name| name.replace("woody.", "x-rbk-"));
    world().await.exchange(&request).await.is_unexpected(400, "bad woody. id header");
}

#[tokio::test]
async fn s30_the_first_failure_wins() {
    let world = world().await;
    let no_ids = Request::new().map_names(|name| name.replace("woody.", "x-"));
    let get = no_ids.clone().without("content-type").line("GET /v1/svc HTTP/1.1");
    world.exchange(&get).await.is_unexpected(405, "wrong method: GET");
    let bad_type = no_ids.clone().replace("content-type", "a/b").replace("accept", "a/b");
    world.exchange(&bad_type).await.is_unexpected(415, "wrong content type: a/b");
    let bad_accept = no_ids.clone().replace("accept", "a/b");
    world.exchange(&bad_accept).await.is_unexpected(406, "wrong client accept: a/b");
    let bad_deadline = no_ids.with("woody.deadline", "30s");
    world.exchange(&bad_deadline).await.is_unexpected(400, "bad woody. id header");
}

#[tokio::test]
async fn s31_s32_meta() {
    let mut world = world().await;
    let request = Request::new()
        .with("woody.meta.a", "1")
        .with("WOODY.META.User-Identity.ID", "2")
        .with("woody.metaX.q", "3")
        .with("woody.meta.b", "");
    world.exchange(&request).await.is_ok();
    let meta: Vec<_> = world.seen().await.context.meta;
    assert_eq!(meta, [("a", "1"), ("user-identity.id", "2"), ("b", "")].map(|(k, v)| (k.into(), v.into())));

    let request = Request::new().with("woody.meta.a", "1").with("woody.meta.c", "3").with("woody.meta.A", "2");
    world.exchange(&request).await.is_ok();
    let meta: Vec<_> = world.seen().await.context.meta;
    assert_eq!(meta, [("a", "1, 2"), ("c", "3")].map(|(k, v)| (k.into(), v.into())));
}

#[tokio::test]
async fn s33_s34_meta_keys_of_any_length() {
    let mut world = world().await;
    for length in [53, 54, 200] {
        let key = "k".repeat(length);
        world.exchange(&Request::new().with(&format!("woody.meta.{key}"), "v")).await.is_ok();
        assert_eq!(world.seen().await.context.meta, [(key.into(), "v".into())]);
    }
}

#[tokio::test]
async fn s35_s36_too_much_of_headers() {
    let world = world().await;
    world.exchange(&Request::new().with("x", "v".repeat(4096))).await.is_ok();
    let mut hundred = Request::new();
    for number in 0..93 {
        hundred = hundred.with(&format!("x-{number}"), "v");
    }
    world.exchange(&hundred).await.is_ok();
    for request in [Request::new().with("x", "v".repeat(5000)), hundred.with("one", "more")] {
        let mut peer = world.connect().await;
        peer.exchange(&request).await.is_bare(&[431]);
        peer.closed().await;
    }
}

#[tokio::test]
async fn s37_deadlines_in_utc() {
    let mut world = world().await;
    let seconds = 4_071_006_245_000_i64;
    let table = [
        ("2099-01-02T03:04:05Z", 0),
        ("2099-01-02T03:04:05.5Z", 500),
        ("2099-01-02T03:04:05.123Z", 123),
        ("2099-01-02T03:04:05.123456789Z", 123),
        ("2099-01-02T03:04:05.9999Z", 1000),
        ("2099-01-02T03:04:05+00:00", 0),
        ("2099-01-02T03:04:05-00:00", 0),
    ];
    for (deadline, millis) in table {
        world.exchange(&Request::new().with("woody.deadline", deadline)).await.is_ok();
        assert_eq!(world.seen().await.context.deadline, Some(seconds + millis), "{deadline}");
    }
    world.exchange(&Request::new()).await.is_ok();
    assert_eq!(world.seen().await.context.deadline, None);
}

#[tokio::test]
async fn s38_deadlines_not_in_utc() {
    let world = world().await;
    let bad =
        ["2099-01-02T03:04:05+03:00", "2099-01-02T03:04:05", "2099-01-02T03:04:05z", "30s", "5000", "", "2099-01-02"];
    for deadline in bad {
        let answer = world.exchange(&Request::new().with("woody.deadline", deadline)).await;
        answer.is_unexpected(400, "bad woody.deadline header: not_utc");
    }
}

#[tokio::test]
async fn s39_s40_deadlines_that_are_none() {
    let mut world = world().await;
    for deadline in ["2099-13-02T03:04:05Z", "2099-01-02T03:04:05.Z", "badZ", "Z", "99999-01-02T03:04:05Z"] {
        let answer = world.exchange(&Request::new().with("woody.deadline", deadline)).await;
        answer.is_error_like(400, "Result Unexpected", "bad woody.deadline header: ");
    }
    world.nothing_was_called();
}

#[tokio::test]
async fn s41_s42_a_deadline_that_passed() {
    let mut world = world().await;
    let second_ago = format_deadline(NOW - 1000);
    let now = format_deadline(NOW);
    for deadline in [&second_ago, &now, "1970-01-01T00:00:00Z", "1500-01-01T00:00:00Z"] {
        let answer = world.exchange(&Request::new().with("woody.deadline", deadline)).await;
        answer.is_error(503, "Resource Unavailable", "deadline reached");
    }
    world.nothing_was_called();
    let ahead = Request::new().with("woody.deadline", format_deadline(NOW + 5000));
    world.exchange(&ahead).await.is_ok();
    world.hand.advance(Duration::from_secs(5));
    world.exchange(&ahead).await.is_error(503, "Resource Unavailable", "deadline reached");
}

#[tokio::test]
async fn s43_the_deadline_comes_before_the_body() {
    let request = Request::new().with("woody.deadline", format_deadline(NOW - 1)).body("");
    world().await.exchange(&request).await.is_error(503, "Resource Unavailable", "deadline reached");
}

#[tokio::test]
async fn s90_only_a_valid_traceparent_is_passed_on() {
    let mut world = world().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";
    let valid = format!("{parent}01");
    let ignored = [
        "garbage".to_owned(),
        format!("{parent}03"),
        format!("ff{}01", &parent[2..]),
        "00-00000000000000000000000000000000-0000000000000000-01".to_owned(),
    ];
    for traceparent in ignored {
        let request = Request::new().with("traceparent", &traceparent).with("baggage", "without-equals");
        world.exchange(&request).await.is_ok();
        assert!(world.seen().await.context.trace.is_empty(), "{traceparent}");
    }
    world.exchange(&Request::new().with("baggage", "k=v,l=w").with("traceparent", "garbage")).await.is_ok();
    let trace = world.seen().await.context.trace;
    let trace: Vec<_> = trace.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ascii"))).collect();
    assert_eq!(trace, [("baggage", "k=v,l=w")]);
    let request = Request::new().with("baggage", "k=v+w").with("traceparent", &valid).with("tracestate", "a=b");
    world.exchange(&request).await.is_ok();
    let trace = world.seen().await.context.trace;
    let trace: Vec<_> = trace.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ascii"))).collect();
    assert_eq!(trace, [("traceparent", valid.as_str()), ("tracestate", "a=b"), ("baggage", "k=v+w")]);
}

#[tokio::test]
async fn s91_nothing_is_echoed() {
    let request = Request::new()
        .with("woody.deadline", "2099-01-02T03:04:05Z")
        .with("woody.meta.a", "1")
        .with("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let world = world().await;
    for request in [request.clone(), request.body("")] {
        let answer = world.exchange(&request).await;
        let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let expected = match answer.status {
            200 => vec!["content-length", "content-type", "date", "server"],
            _ => vec!["content-length", "date", "server", "woody.error-class", "woody.error-reason"],
        };
        assert_eq!(names, expected);
    }
}
