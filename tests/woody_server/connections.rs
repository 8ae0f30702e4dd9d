//! S92, S93 and what else a connection can go through: silence, hanging up, too many, the stop.

use std::time::Duration;

use crate::peer::{Peer, Request, STR, STR_REPLY, long_call, message, text, unhex};
use crate::world::{until, world, world_with};
use machinegun::clock::Clock;
use machinegun::woody::{Server, ServerSettings};

const SHORT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn s92_idle_connections_are_kept() {
    // Peers keep theirs for up to 150 s between requests; the bound on headers is no bound on silence.
    assert!(ServerSettings::default().idle_timeout >= Duration::from_secs(150));
    let world = world_with(|settings| {
        settings.header_read_timeout = SHORT;
        settings.body_read_timeout = SHORT;
    });
    let world = world.await;
    let mut peer = world.connect().await;
    peer.exchange(&Request::new()).await.is_ok();
    // A fresh connection is cut for its silence: by then the used one has been silent for longer.
    world.connect().await.closed().await;
    peer.exchange(&Request::new()).await.is_ok();
    // The same where a refused body was skipped in between.
    peer.exchange(&Request::new().line("PUT /v1/svc HTTP/1.1")).await.is_unexpected(405, "wrong method: PUT");
    world.connect().await.closed().await;
    peer.exchange(&Request::new()).await.is_ok();
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let world = world_with(|settings| settings.idle_timeout = SHORT).await;
    let mut peer = world.connect().await;
    peer.exchange(&Request::new()).await.is_ok();
    peer.closed().await;
}

#[tokio::test]
async fn slow_headers_are_cut() {
    let world = world_with(|settings| settings.header_read_timeout = SHORT).await;
    let head = Request::new().head();
    for used in [false, true] {
        let mut peer = world.connect().await;
        if used {
            peer.exchange(&Request::new()).await.is_ok();
        }
        peer.send(&head[..30]).await;
        peer.answer().await.is_bare(&[408]);
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_stalled_body_is_cut() {
    let mut world = world_with(|settings| settings.body_read_timeout = SHORT).await;
    let mut peer = world.connect().await;
    peer.send(Request::new().head()).await;
    peer.answer().await.is_error_like(400, "Result Unexpected", "body not readable: ");
    peer.closed().await;
    world.nothing_was_called();
}

#[tokio::test]
async fn a_slow_handler_is_not_silence() {
    let mut world = world_with(|settings| {
        settings.header_read_timeout = SHORT;
        settings.body_read_timeout = SHORT;
        settings.idle_timeout = SHORT;
    })
    .await;
    let mut peer = world.connect().await;
    peer.send(Request::new().call("Str", &text("wait")).bytes()).await;
    world.seen().await;
    world.connect().await.closed().await;
    world.open();
    peer.answer().await.is_ok();
}

#[tokio::test]
async fn a_request_in_single_bytes() {
    let mut peer = world().await.connect().await;
    for byte in Request::new().bytes() {
        peer.send([byte]).await;
    }
    peer.answer().await.is_result(STR_REPLY);
}

#[tokio::test]
async fn s93_a_client_that_hangs_up_stops_no_handler() {
    let mut world = world().await;
    let mut peer = world.connect().await;
    peer.send(Request::new().call("Str", &text("wait")).bytes()).await;
    world.seen().await;
    drop(peer);
    world.exchange(&Request::new()).await.is_result(STR_REPLY);
    assert_eq!(world.done().await, "hi");
    world.open();
    assert_eq!(world.done().await, "wait");
}

#[tokio::test]
async fn s93a_a_connection_serves_any_number_of_requests() {
    let mut world = world().await;
    let mut peer = world.connect().await;
    for _ in 0..1001 {
        peer.exchange(&Request::new()).await.is_result(STR_REPLY);
        world.seen().await;
        world.done().await;
    }
}

#[tokio::test]
async fn s93b_a_oneway_handler_outlives_its_client() {
    let mut world = world().await;
    let mut peer = world.connect().await;
    peer.exchange(&Request::new().body(message(4, "One", 0, &text("wait")))).await.is_result("");
    drop(peer);
    world.seen().await;
    world.open();
    assert_eq!(world.done().await, "wait");
}

fn waiting_call() -> Request {
    Request::new().call("Str", &text("wait"))
}

#[tokio::test]
async fn connections_past_the_bounds_wait_then_are_refused() {
    let mut world = world_with(|settings| {
        settings.max_connections = 1;
        settings.max_waiting_connections = 1;
    })
    .await;
    let mut served = world.connect().await;
    served.send(waiting_call().bytes()).await;
    world.seen().await;
    let mut waiting = world.connect().await;
    waiting.send(Request::new().bytes()).await;
    let connections = world.connections.clone();
    until(|| connections.waiting() == 1).await;
    let mut refused = world.connect().await;
    refused.send(Request::new().bytes()).await;
    refused.answer().await.is_error(503, "Resource Unavailable", "too many connections");
    refused.closed().await;
    let counts = (world.connections.open(), world.connections.waiting(), world.connections.refused());
    assert_eq!(counts, (2, 1, 1));
    world.nothing_was_called();
    world.open();
    served.answer().await.is_ok();
    waiting.answer().await.is_result(STR_REPLY);
    assert_eq!(world.connections.waiting(), 0);
}

#[tokio::test]
async fn a_request_that_waits_for_a_place_waits_no_longer_than_its_deadline() {
    let mut world = world_with(|settings| settings.max_connections = 1).await;
    let mut served = world.connect().await;
    served.send(waiting_call().bytes()).await;
    world.seen().await;
    let mut waiting = world.connect().await;
    waiting.send(Request::new().with("woody.deadline", "2030-01-01T00:00:01Z").bytes()).await;
    let connections = world.connections.clone();
    until(|| connections.waiting() == 1).await;
    world.hand.advance(Duration::from_secs(1));
    waiting.answer().await.is_error(503, "Resource Unavailable", "deadline reached");
    world.nothing_was_called();
}

#[tokio::test]
async fn probes_and_metrics_are_answered_however_many_connections_there_are() {
    let mut world = world_with(|settings| {
        settings.max_connections = 1;
        settings.max_waiting_connections = 2;
    })
    .await;
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut peer = world.connect().await;
        peer.send(waiting_call().bytes()).await;
        busy.push(peer);
    }
    let connections = world.connections.clone();
    until(|| connections.waiting() == 2).await;
    for path in ["/health", "/healthz/readiness", "/metrics"] {
        // With a place among the many, and beyond all places.
        let mut probe = world.connect().await;
        probe.send(Request::new().line(&format!("GET {path} HTTP/1.1")).body("").bytes()).await;
        let answer = probe.answer().await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"plain"[..]));
        assert_eq!(answer.header("connection").as_deref(), Some("close"));
        probe.closed().await;
    }
    for peer in &mut busy {
        world.seen().await;
        world.open();
        peer.answer().await.is_ok();
    }
}

#[tokio::test]
async fn who_has_been_idle_for_longest_makes_room_and_who_waits_for_an_answer_gets_it() {
    let mut world = world_with(|settings| {
        settings.max_connections = 2;
        settings.max_waiting_connections = 1;
        settings.least_idle = Duration::ZERO;
    })
    .await;
    let mut busy = world.connect().await;
    busy.send(waiting_call().bytes()).await;
    world.seen().await;
    let mut longest = world.connect().await;
    longest.exchange(&Request::new()).await.is_ok();
    let mut idle = world.connect().await;
    idle.exchange(&Request::new()).await.is_ok();
    let mut new = world.connect().await;
    new.exchange(&Request::new()).await.is_result(STR_REPLY);
    longest.closed().await;
    assert_eq!((world.connections.evicted(), world.connections.refused()), (1, 0));
    // Nor does one that has not asked for anything yet keep others out.
    let mut silent = world.connect().await;
    idle.closed().await;
    let mut newer = world.connect().await;
    newer.exchange(&Request::new()).await.is_ok();
    new.closed().await;
    world.connect().await.exchange(&Request::new()).await.is_ok();
    silent.closed().await;
    world.open();
    busy.answer().await.is_ok();
}

#[tokio::test]
async fn many_silent_connections_beyond_all_places_leave_nobody_with_a_reset() {
    let mut world = world_with(|settings| {
        settings.max_connections = 1;
        settings.max_waiting_connections = 0;
    })
    .await;
    let mut busy = world.connect().await;
    busy.send(waiting_call().bytes()).await;
    world.seen().await;
    // More than are heard at once, and more than may be on their way out.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(world.connect().await);
    }
    for _ in 0..10 {
        world.exchange(&Request::new()).await.is_error(503, "Resource Unavailable", "too many connections");
    }
    assert_eq!(world.connections.refused(), 10, "all were answered");
    world.open();
    busy.answer().await.is_ok();
}

#[tokio::test]
async fn what_another_server_passes_on_has_its_place_there() {
    let mut world = world_with(|settings| {
        settings.max_connections = 1;
        settings.max_waiting_connections = 1;
        settings.passed_on = Some(http::HeaderName::from_static("x-passed-on"));
    })
    .await;
    let mut served = world.connect().await;
    served.send(waiting_call().bytes()).await;
    world.seen().await;
    let passed_on = Request::new().with("x-passed-on", "yes");
    let mut second = world.connect().await;
    second.exchange(&passed_on).await.is_result(STR_REPLY);
    second.send(waiting_call().bytes()).await;
    let connections = world.connections.clone();
    until(|| connections.waiting() == 1).await;
    // All are at work: this one is beyond all places, and is heard all the same.
    let mut third = world.connect().await;
    let answer = third.exchange(&passed_on).await;
    answer.is_result(STR_REPLY);
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    world.open();
    world.open();
    served.answer().await.is_ok();
    second.answer().await.is_ok();
}

#[tokio::test]
async fn who_dribbles_keeps_nobody_else_from_being_worked_on() {
    let world = world_with(|settings| settings.max_connections = 1).await;
    let mut slow = world.connect().await;
    let request = Request::new().bytes();
    let (first, rest) = request.split_at(request.len() - 1);
    slow.send(first).await;
    world.exchange(&Request::new()).await.is_result(STR_REPLY);
    slow.send(rest).await;
    slow.answer().await.is_result(STR_REPLY);
}

#[tokio::test]
async fn a_body_that_dribbles_in_is_cut() {
    let mut world = world_with(|settings| {
        settings.body_read_timeout = SHORT;
        // Nobody can keep up with that.
        settings.least_pace = u64::MAX;
    })
    .await;
    let mut peer = world.connect().await;
    peer.send(Request::new().body(long_call(1_000_000)).head()).await;
    while !peer.has_heard() {
        peer.try_send(b"x").await;
    }
    peer.answer().await.is_error_like(400, "Result Unexpected", "body not readable: ");
    world.nothing_was_called();
}

#[tokio::test]
async fn who_pipelines_for_ever_and_takes_no_answer_is_cut() {
    let world = world_with(|settings| settings.write_timeout = SHORT).await;
    let mut peer = world.connect().await;
    let request = Request::new().body(long_call(100_000)).bytes();
    // It reads nothing, until what it sends is taken no more.
    while peer.can_send(&request).await {}
    let connections = world.connections.clone();
    until(|| connections.open() == 0).await;
}

#[tokio::test]
async fn a_stop_lets_exchanges_end() {
    let mut world = world().await;
    let mut idle = world.connect().await;
    idle.exchange(&Request::new()).await.is_ok();
    world.seen().await;
    let mut busy = world.connect().await;
    busy.send(Request::new().call("Str", &text("wait")).bytes()).await;
    world.seen().await;
    world.stop();
    idle.closed().await;
    world.open();
    let answer = busy.answer().await;
    answer.is_ok();
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    busy.closed().await;
    let address = world.address;
    world.stopped().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_it_may() {
    for time in [Duration::ZERO, SHORT] {
        let mut world = world_with(|settings| settings.shutdown_timeout = time).await;
        let mut busy = world.connect().await;
        busy.send(Request::new().call("Str", &text("wait")).bytes()).await;
        world.seen().await;
        world.stop();
        busy.closed().await;
        world.stopped().await;
    }
}

#[tokio::test]
async fn a_stop_waits_for_detached_handlers() {
    let mut world = world().await;
    let mut peer = world.connect().await;
    peer.exchange(&Request::new().body(message(4, "One", 0, &text("wait")))).await.is_result("");
    world.seen().await;
    world.stop();
    peer.closed().await;
    assert!(!world.served.is_finished());
    world.open();
    world.stopped().await;
}

#[tokio::test]
async fn new_connections_are_served_while_draining() {
    let (clock, _hand) = Clock::manual(0);
    let any = "[::]:0".parse().expect("an address");
    let server = Server::bind(any, ServerSettings::default(), clock).expect("a free port");
    let address = server.local_addr();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (drained, drains) = tokio::sync::oneshot::channel::<()>();
    let drain = async {
        begun.send(()).expect("the test waits");
        let _ = drains.await;
    };
    let served = tokio::spawn(server.serve(async {}, drain));
    begins.await.expect("draining begins");
    // On IPv6 too: the one listener takes both.
    let mut peer = Peer::connect(([0, 0, 0, 0, 0, 0, 0, 1], address.port()).into()).await;
    peer.exchange(&Request::new()).await.is_bare(&[404]);
    drained.send(()).expect("the drain waits");
    peer.closed().await;
    served.await.expect("no panic");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let world = world().await;
    let taken = ("::".parse::<std::net::Ipv6Addr>().expect("an address"), world.address.port()).into();
    let error = Server::bind(taken, ServerSettings::default(), Clock::system()).err().expect("the port is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("can't listen on {taken}: ")), "{error}");
}

#[tokio::test]
async fn a_client_that_takes_no_reply_is_cut() {
    let mut world = world_with(|settings| {
        settings.write_timeout = SHORT;
        settings.shutdown_timeout = Duration::from_secs(3600);
    })
    .await;
    let mut peer = world.connect().await;
    // More than the sockets' buffers take.
    peer.send(Request::new().body(long_call(16_000_000)).bytes()).await;
    world.seen().await;
    // A stop would wait for the exchange to end.
    world.stop();
    world.stopped().await;
}

#[tokio::test]
async fn a_body_in_two_pieces_with_a_pause() {
    let mut world = world().await;
    let mut peer = world.connect().await;
    let (first, second) = (unhex(STR)[..10].to_vec(), unhex(STR)[10..].to_vec());
    peer.send([Request::new().head(), first].concat()).await;
    world.exchange(&Request::new()).await.is_ok();
    world.seen().await;
    peer.send(second).await;
    peer.answer().await.is_result(STR_REPLY);
}

#[tokio::test]
async fn an_exchange_that_takes_too_long_is_cut_while_its_handler_goes_on() {
    let mut world = world_with(|settings| settings.exchange_timeout = Some(SHORT)).await;
    // On a new connection, and with a next request behind it.
    for behind in [Vec::new(), Request::new().bytes()] {
        let mut peer = world.connect().await;
        peer.send([Request::new().call("Str", &text("wait")).bytes(), behind].concat()).await;
        world.seen().await;
        peer.closed().await;
        world.open();
        assert_eq!(world.done().await, "wait");
    }
    world.nothing_was_called();
}

#[tokio::test]
async fn a_body_that_never_comes_to_its_end_is_cut_with_its_exchange() {
    let mut world = world_with(|settings| settings.exchange_timeout = Some(SHORT)).await;
    let mut peer = world.connect().await;
    peer.send(Request::new().head()).await;
    peer.answer().await.is_error_like(400, "Result Unexpected", "body not readable: ");
    peer.closed().await;
    world.nothing_was_called();
}

#[tokio::test]
async fn a_bound_on_exchanges_is_none_on_the_silence_between_them() {
    let time = Duration::from_secs(2);
    let world = world_with(|settings| {
        settings.exchange_timeout = Some(time);
        settings.header_read_timeout = time;
    });
    let world = world.await;
    let mut peer = world.connect().await;
    peer.exchange(&Request::new()).await.is_ok();
    // A fresh connection is cut for its silence: by then the used one has been silent for longer.
    world.connect().await.closed().await;
    peer.exchange(&Request::new()).await.is_ok();
}
