//! The pool: its bound, what it reuses, and that no request is ever received twice.

use std::time::Duration;

use machinegun::woody::{Class, Source};

use crate::script::*;

#[tokio::test]
async fn a_connection_is_used_again() {
    let script = Script::new().await;
    let peer = async {
        let mut taken = script.take().await;
        let refusals = ["503 X", "500 X"].map(|status| response(status, &[], b""));
        for reply in [vec![ok(REPLY)], refusals.to_vec(), vec![ok(REPLY)]].concat() {
            taken.request().await;
            taken.send(reply).await;
        }
        script.nobody_came().await;
    };
    let calls = async {
        for success in [true, false, false, true] {
            assert_eq!(script.call().await.is_ok(), success);
        }
    };
    tokio::join!(calls, peer);
}

#[tokio::test]
async fn c35_the_pool_is_exhausted() {
    let script = Script::with(|settings| settings.pool_size = 1).await;
    let (client, url) = (script.client.clone(), format!("http://{}/", script.address));
    let held = tokio::spawn(async move {
        client.call(&url.parse().expect("a url"), &context(), Some(DEADLINE), unhex(CALL).into()).await
    });
    let mut taken = script.take().await;
    taken.request().await;
    let late = async {
        tokio::task::yield_now().await;
        // A fifth of what is left to the deadline.
        script.hand.advance(Duration::from_millis(300));
    };
    let (outcome, ()) = tokio::join!(script.call(), late);
    let error = outcome.expect_err("no place in the pool");
    assert_eq!((error.source, error.class), (Source::Internal, Class::ResourceUnavailable));
    assert_eq!(error.details, "checkout_timeout");
    script.nobody_came().await;
    taken.send(ok(REPLY)).await;
    assert!(held.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn waiting_calls_take_the_connection_that_comes_free() {
    let script = Script::with(|settings| settings.pool_size = 1).await;
    let peer = async {
        let mut taken = script.take().await;
        for _ in 0..3 {
            taken.request().await;
            taken.send(ok(REPLY)).await;
        }
        script.nobody_came().await;
    };
    let (one, two, three, ()) = tokio::join!(script.call(), script.call(), script.call(), peer);
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
}

#[tokio::test]
async fn an_idle_connection_to_another_peer_makes_room() {
    let script = Script::with(|settings| settings.pool_size = 1).await;
    let other = Script::new().await;
    let (mut first, outcome) = answered_alive(&script, &script).await;
    assert!(outcome.is_ok());
    let (_second, outcome) = answered_alive(&script, &other).await;
    assert!(outcome.is_ok());
    first.closed().await;
}

/// A call by `script`'s client, answered by `peer`, which keeps the connection open.
async fn answered_alive(script: &Script, peer: &Script) -> (Taken, Result<bytes::Bytes, machinegun::woody::Error>) {
    let answering = async {
        let mut taken = peer.take().await;
        taken.request().await;
        taken.send(ok(REPLY)).await;
        taken
    };
    let url = format!("http://{}/", peer.address);
    let (outcome, taken) = tokio::join!(script.call_to(&url), answering);
    (taken, outcome)
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let script = Script::new().await;
    let (mut taken, outcome) = answered_alive(&script, &script).await;
    assert!(outcome.is_ok());
    tokio::task::yield_now().await;
    script.hand.advance(Duration::from_secs(4));
    taken.closed().await;
}

#[tokio::test]
async fn c39_a_connection_that_the_peer_closed_meanwhile() {
    let script = Script::new().await;
    for _ in 0..50 {
        let (taken, outcome) = answered_alive(&script, &script).await;
        assert!(outcome.is_ok());
        drop(taken);
        // Closed, and not yet noticed by the runtime: the next call must not write into it.
    }
}

#[tokio::test]
async fn c39_a_request_that_was_received_is_never_sent_again() {
    let script = Script::new().await;
    let (mut taken, outcome) = answered_alive(&script, &script).await;
    assert!(outcome.is_ok());
    let peer = async {
        taken.request().await;
        drop(taken);
    };
    let (outcome, ()) = tokio::join!(script.call(), peer);
    let error = outcome.expect_err("the connection closed");
    assert_eq!((error.source, error.class), (Source::External, Class::ResultUnknown), "{error}");
    script.nobody_came().await;
}

#[tokio::test]
async fn a_call_that_gave_up_leaves_no_connection_behind() {
    let script = Script::with(|settings| settings.pool_size = 1).await;
    let error = script.left_alone("").await.expect_err("silence");
    assert_eq!(error.details, "timeout");
}
