//! The bound on the bytes of bodies: refused before they are read, or as soon as they are too many.

use std::sync::Arc;

use machinegun::woody::Bodies;

use crate::peer::{PATIENCE, Request, STR_REPLY, long_call, text};
use crate::world::{World, until, world_with};

const SETTING: &str = "limits.bodies.requests";
const REFUSED: &str = "overload: limits.bodies.requests is reached";

async fn with_room_for(bytes: u64) -> (World, Arc<Bodies>) {
    let bodies = Bodies::new(SETTING, bytes);
    let bound = bodies.clone();
    (world_with(move |settings| settings.bodies = bound).await, bodies)
}

/// Whoever keeps a slice of a body keeps the body: the test has some, of what handlers saw and did.
async fn nothing_is_held(world: &mut World, bodies: &Bodies) {
    let wait = async {
        while bodies.held() > 0 {
            world.forget();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("all is given back in time");
}

fn chunked(request: &Request, body: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let head = request.clone().unmeasured().with("transfer-encoding", "chunked").head();
    (head, [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat())
}

#[tokio::test]
async fn a_body_for_which_there_is_no_room_is_refused_before_it_is_read() {
    let (mut world, bodies) = with_room_for(1_000).await;
    let mut busy = world.connect().await;
    busy.send(Request::new().call("Str", &text("wait")).bytes()).await;
    world.seen().await;
    let held = bodies.held();
    assert!(held > 0);
    // Its head is all that comes.
    let mut claiming = world.connect().await;
    claiming.send(Request::new().body(long_call(1_000)).head()).await;
    claiming.answer().await.is_error(503, "Resource Unavailable", REFUSED);
    assert_eq!((bodies.held(), bodies.refused()), (held, 1));
    // What fits goes on.
    world.exchange(&Request::new()).await.is_result(STR_REPLY);
    world.seen().await;
    world.nothing_was_called();
    world.open();
    busy.answer().await.is_ok();
    nothing_is_held(&mut world, &bodies).await;
    world.exchange(&Request::new().body(long_call(900))).await.is_ok();
}

#[tokio::test]
async fn a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_long() {
    let (mut world, bodies) = with_room_for(1_000).await;
    let (head, body) = chunked(&Request::new(), &long_call(900));
    let mut peer = world.connect().await;
    peer.send([head, body].concat()).await;
    peer.answer().await.is_ok();
    world.seen().await;
    let (head, body) = chunked(&Request::new(), &long_call(2_000));
    let mut peer = world.connect().await;
    peer.try_send([head, body].concat()).await;
    peer.answer().await.is_error(503, "Resource Unavailable", REFUSED);
    world.nothing_was_called();
    nothing_is_held(&mut world, &bodies).await;
}

#[tokio::test]
async fn who_claims_much_and_sends_little_holds_little() {
    let (mut world, bodies) = with_room_for(100_000).await;
    let mut hoarders = Vec::new();
    for _ in 0..10 {
        let mut peer = world.connect().await;
        let request = Request::new().body(long_call(90_000)).bytes();
        peer.send(&request[..1_000]).await;
        hoarders.push(peer);
    }
    until(|| bodies.held() > 0).await;
    world.exchange(&Request::new().body(long_call(80_000))).await.is_ok();
    assert_eq!(bodies.refused(), 0);
    drop(hoarders);
    nothing_is_held(&mut world, &bodies).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_leaves_less_room_for_requests() {
    let (mut world, bodies) = with_room_for(20_000_000).await;
    let mut peer = world.connect().await;
    // More than the sockets' buffers take.
    peer.send(Request::new().body(long_call(16_000_000)).bytes()).await;
    world.seen().await;
    // The request's own body is gone.
    world.forget();
    until(|| (16_000_000..17_000_000).contains(&bodies.held())).await;
    world.exchange(&Request::new().body(long_call(10_000_000))).await.is_error(503, "Resource Unavailable", REFUSED);
    peer.answer().await.is_ok();
    nothing_is_held(&mut world, &bodies).await;
    world.exchange(&Request::new().body(long_call(1_000_000))).await.is_ok();
}

#[tokio::test]
async fn while_memory_is_short_only_small_bodies_are_read() {
    let (world, bodies) = with_room_for(u64::MAX).await;
    bodies.set_short(true);
    world.exchange(&Request::new()).await.is_result(STR_REPLY);
    let refused = world.exchange(&Request::new().body(long_call(100_000))).await;
    refused.is_error(503, "Resource Unavailable", "overload: limits.memory is reached");
    bodies.set_short(false);
    world.exchange(&Request::new().body(long_call(100_000))).await.is_ok();
}
