//! Where requests go, and what comes back.

use std::time::Duration;

use machinegun::storage::Storage;
use machinegun::wire::{
    Call, ComplexAction, Exception, GetMachine, Notify, ProcessCall, ProcessSignal, Protocol, Remove, SignalResult,
    SimpleRepair, Start, TagAction, Value,
};
use tokio::time::timeout;

use crate::fleet::LEASE_MS;
use crate::link::{Link, Way};
use crate::live::http::Answer;
use crate::live::processor::{NOTHING, signed, to_call, to_signal};
use crate::live::{self, Callee, Failure, PATIENCE, id, result};
use crate::peer::Peer;
use crate::town::Town;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn unavailable() -> Failure {
    Failure::Status(503, "Resource Unavailable".to_owned())
}

/// All of an answer that a caller could act on.
fn seen(answer: &Answer) -> (u16, Option<&str>, Option<&str>, Option<&str>, &[u8]) {
    let header = |name| answer.header(name);
    let (class, reason) = (header("woody.error-class"), header("woody.error-reason"));
    (answer.status, class, reason, header("content-type"), &answer.body)
}

/// Starts a machine, through this service.
async fn started(town: &Town, callee: &mut Callee, at: usize, machine: &str) {
    let args = live::start(machine, "args");
    let (answer, _) = tokio::join!(
        town.ask::<Start>(at, &[], &args),
        callee.answer::<ProcessSignal>(|_| to_signal(signed("started")))
    );
    result::<Start>(&answer).expect("started");
}

/// A town of one service, whose machine is another instance's: the test's.
async fn occupied(machine: &str) -> (Town, Callee, Peer) {
    let (town, mut callee) = Town::of(1).await;
    started(&town, &mut callee, 0, machine).await;
    let peer = Peer::settle(&town.storage).await;
    town.until(|all| all[0]["owned"] == 0).await;
    (town, callee, peer)
}

#[tokio::test]
async fn what_is_passed_on_to_one_who_has_left_is_refused_and_never_kept_until_it_is_gone() {
    let (town, mut callee) = Town::of(2).await;
    let machine = town.id_at(1).await;
    started(&town, &mut callee, 1, &machine).await;
    town.houses[1].stopper().cancel();
    town.until(|all| all[1]["owned"] == 0).await;
    let args = live::to(id(&machine), "go");
    // It is there until the other one knows.
    for _ in 0..10 {
        let answer = town.ask::<Call>(1, &[("x-machinegun-forwarded", "abc")], &args).await;
        assert!(answer.header("x-machinegun-not-owner").is_some(), "{answer:?}");
        town.hand.advance(Duration::from_millis(LEASE_MS as u64 / 100));
    }
}

#[tokio::test]
async fn a_machine_is_reached_through_any_instance_and_its_processor_hears_the_same() {
    let (town, mut callee) = Town::of(2).await;
    let machine = town.id_at(1).await;
    started(&town, &mut callee, 0, &machine).await;
    let deadline = town.deadline(60);
    let headers =
        [("woody.meta.user-identity.id", "u1"), ("traceparent", TRACEPARENT), ("woody.deadline", &deadline[..])];
    let mut heard = Vec::new();
    for at in [0, 1] {
        let args = live::to(id(&machine), "go");
        let (answer, it) =
            tokio::join!(town.ask::<Call>(at, &headers, &args), callee.answer::<ProcessCall>(|_| to_call(signed("x"))));
        assert_eq!(result::<Call>(&answer), Ok(Value::str("done")));
        assert_eq!(answer.header("x-machinegun-not-owner"), None);
        heard.push(it.context);
    }
    // Each call has a span of its own.
    heard[1].span_id = heard[0].span_id.clone();
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0].meta, [("user-identity.id".into(), "u1".into())]);
    assert_eq!(heard[0].parent_id, "span");
    for at in [0, 1] {
        let answer = town.ask::<GetMachine>(at, &[], &live::of(id(&machine))).await;
        assert_eq!(result::<GetMachine>(&answer).expect("it is there").history.len(), 3);
        let answer = town.ask::<Notify>(at, &[], &live::to(id(&machine), "news")).await;
        result::<Notify>(&answer).expect("accepted");
    }
    let answered = "machinegun_forwards_total{outcome=\"answered\"}";
    assert_eq!((town.metric(0, answered).await, town.metric(1, answered).await), (4, 0));
}

/// Whoever is asked looks up whose tag it is; the request goes on as it came, and its owner looks it up again.
#[tokio::test]
async fn a_machine_is_reached_by_its_tag_through_any_instance() {
    let (mut town, mut callee) = Town::new();
    town.protocol = Protocol::Y2021;
    town.fill(2).await;
    let machine = town.id_at(1).await;
    let tagged = SignalResult {
        action: ComplexAction { tag: Some(TagAction { tag: "order-7".into() }), ..NOTHING },
        ..to_signal(signed("started"))
    };
    let args = live::start(&machine, "args");
    let (answer, _) = tokio::join!(town.ask::<Start>(0, &[], &args), callee.answer::<ProcessSignal>(move |_| tagged));
    result::<Start>(&answer).expect("started");
    let args = live::to(live::tag("order-7"), "go");
    for at in [0, 1] {
        let (answer, _) =
            tokio::join!(town.ask::<Call>(at, &[], &args), callee.answer::<ProcessCall>(|_| to_call(signed("x"))));
        assert_eq!(result::<Call>(&answer), Ok(Value::str("done")));
        let answer = town.ask::<GetMachine>(at, &[], &live::of(live::tag("order-7"))).await;
        assert_eq!(result::<GetMachine>(&answer).expect("it is there").id, machine);
        // Whose it is nobody can say, so there is nobody to ask.
        let answer = town.ask::<Call>(at, &[], &live::to(live::tag("order-8"), "go")).await;
        assert_eq!(result::<Call>(&answer), Err(Failure::Thrown(Exception::MachineNotFound)));
    }
    let answered = "machinegun_forwards_total{outcome=\"answered\"}";
    assert_eq!((town.metric(0, answered).await, town.metric(1, answered).await), (3, 0));
    let answer = town.ask::<GetMachine>(1, &[], &live::of(id(&machine))).await;
    assert_eq!(result::<GetMachine>(&answer).expect("it is there").history.len(), 3);
    // As it came: an owner of another release finds what the caller wrote.
    let peer = Peer::settle(&town.storage).await;
    town.until(|all| all.iter().all(|it| it["owned"] == 0)).await;
    let answering = async {
        let came = peer.came().await;
        assert_eq!(came.body, machinegun::wire::write_call::<Call>(&args, 7));
        came.answer("200 OK", &["content-type: application/x-thrift"], b"").await;
    };
    tokio::join!(town.ask::<Call>(0, &[], &args), answering);
}

#[tokio::test]
async fn exceptions_and_refusals_come_back_as_the_owner_gave_them() {
    let (town, mut callee) = Town::of(2).await;
    let machine = town.id_at(1).await;
    let both = async |town: &Town, what: &str| {
        let (call, repair) = (live::to(id(&machine), "go"), live::simply(id(&machine)));
        let answers = match what {
            "call" => [town.ask::<Call>(0, &[], &call).await, town.ask::<Call>(1, &[], &call).await],
            "start" => {
                let start = live::start(&machine, "args");
                [town.ask::<Start>(0, &[], &start).await, town.ask::<Start>(1, &[], &start).await]
            }
            "repair" => {
                [town.ask::<SimpleRepair>(0, &[], &repair).await, town.ask::<SimpleRepair>(1, &[], &repair).await]
            }
            _ => {
                let args = live::remove("");
                [town.ask::<Remove>(0, &[], &args).await, town.ask::<Remove>(1, &[], &args).await]
            }
        };
        assert_eq!(seen(&answers[0]), seen(&answers[1]), "{what}");
        answers[0].clone()
    };
    let answer = both(&town, "call").await;
    assert_eq!(result::<Call>(&answer), Err(Failure::Thrown(Exception::MachineNotFound)));
    assert_eq!(answer.header("woody.error-class"), Some("Business Error"));
    both(&town, "remove nobody").await;
    started(&town, &mut callee, 0, &machine).await;
    let answer = both(&town, "start").await;
    assert_eq!(result::<Start>(&answer), Err(Failure::Thrown(Exception::MachineAlreadyExists)));
    let answer = both(&town, "repair").await;
    assert_eq!(result::<SimpleRepair>(&answer), Err(Failure::Thrown(Exception::MachineAlreadyWorking)));
}

#[tokio::test]
async fn a_request_goes_to_the_owner_and_its_answer_comes_back_as_they_were() {
    let (town, _callee, peer) = occupied("m").await;
    let deadline = town.deadline(60);
    let sent = [
        ("woody.deadline", &deadline[..]),
        ("woody.meta.user-identity.id", "u1"),
        ("traceparent", TRACEPARENT),
        ("tracestate", "a=b"),
        ("x-anything", "else"),
    ];
    let args = live::to(id("m"), "go");
    let reply = b"any bytes at all \x00\xff";
    let answering = async {
        let came = peer.came().await;
        assert_eq!(came.head.lines().next(), Some("POST /v1/automaton HTTP/1.1"));
        assert_eq!(came.body, machinegun::wire::write_call::<Call>(&args, 7));
        let ids = live::ids();
        let ids = ids.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in sent.into_iter().chain(ids) {
            assert_eq!(came.header(name), Some(value), "{name}");
        }
        let mark = came.header("x-machinegun-forwarded").expect("a mark").to_owned();
        assert_eq!(Some(mark.as_str()), town.shards(0).await["instance"].as_str());
        assert_eq!(came.header("connection"), None);
        let headers = [
            "content-type: application/x-thrift",
            "woody.error-class: Business Error",
            "woody.error-reason: Anything",
            "x-of-theirs: kept",
            "keep-alive: timeout=7",
        ];
        came.answer("218 This Is Fine", &headers, reply).await;
    };
    let (answer, ()) = tokio::join!(town.ask::<Call>(0, &sent, &args), answering);
    let expected = (218, Some("Business Error"), Some("Anything"), Some("application/x-thrift"), &reply[..]);
    assert_eq!(seen(&answer), expected);
    assert_eq!((answer.header("x-of-theirs"), answer.header("keep-alive")), (Some("kept"), None));
    assert_eq!(answer.header("server"), Some("Machinegun"));
}

#[tokio::test]
async fn a_request_that_was_passed_on_once_is_never_passed_on_again() {
    let (town, _callee, peer) = occupied("m").await;
    let mark = [("x-machinegun-forwarded", "abc")];
    let asking = async { town.ask::<Call>(0, &mark, &live::to(id("m"), "go")).await };
    let answer = turned(&town, asking).await;
    assert_eq!(result::<Call>(&answer), Err(unavailable()));
    let own = town.shards(0).await["instance"].as_str().map(str::to_owned);
    assert_eq!(answer.header("x-machinegun-not-owner"), own.as_deref());
    // A read changes nothing, so it is done by whoever is asked.
    let answer = town.ask::<GetMachine>(0, &mark, &live::of(id("m"))).await;
    assert_eq!(result::<GetMachine>(&answer).expect("it is there").history.len(), 1);
    peer.nobody_came().await;
}

/// Turns the clock, less than it takes to declare anyone dead, until there is an answer.
async fn turned<T>(town: &Town, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let turning = async {
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // A moment of real work between two turns.
                _ = town.get(0, "/health") => town.hand.advance(Duration::from_millis(1)),
            }
        }
    };
    timeout(PATIENCE, turning).await.expect("an answer in time")
}

#[tokio::test]
async fn a_request_that_its_owner_has_just_been_given_is_served_there() {
    let (town, mut callee, mut peer) = occupied("m").await;
    peer.leave_to(town.instance(0).await).await;
    let args = live::to(id("m"), "go");
    let asking = town.ask::<Call>(0, &[("x-machinegun-forwarded", "abc")], &args);
    let asking = turned(&town, asking);
    let (answer, _) = tokio::join!(asking, callee.answer::<ProcessCall>(|_| to_call(signed("x"))));
    assert_eq!(result::<Call>(&answer), Ok(Value::str("done")));
    peer.nobody_came().await;
}

#[tokio::test]
async fn whom_the_owner_refuses_as_not_its_own_the_next_owner_serves() {
    let (town, mut callee, mut peer) = occupied("m").await;
    let heir = town.instance(0).await;
    let args = live::to(id("m"), "go");
    let refusing = async {
        let came = peer.came().await;
        peer.leave_to(heir).await;
        came.refuse_as_not_owner().await;
        callee.answer::<ProcessCall>(|_| to_call(signed("x"))).await
    };
    let asking = town.ask::<Call>(0, &[], &args);
    let (answer, _) = tokio::join!(turned(&town, asking), refusing);
    assert_eq!(result::<Call>(&answer), Ok(Value::str("done")));
    assert_eq!(town.metric(0, "machinegun_forwards_total{outcome=\"not_owner\"}").await, 1);
}

#[tokio::test]
async fn an_owner_that_is_not_there_is_waited_for_and_the_next_one_serves() {
    let (town, mut callee, mut peer) = occupied("m").await;
    peer.close();
    let args = live::to(id("m"), "go");
    let asking = turned(&town, town.ask::<Call>(0, &[], &args));
    let following = async {
        while town.metric(0, "machinegun_forwards_total{outcome=\"unreachable\"}").await == 0 {}
        peer.leave_to(town.instance(0).await).await;
        callee.answer::<ProcessCall>(|_| to_call(signed("x"))).await
    };
    let (answer, _) = tokio::join!(asking, following);
    assert_eq!(result::<Call>(&answer), Ok(Value::str("done")));
}

#[tokio::test]
async fn an_owner_that_never_comes_is_waited_for_until_the_deadline_and_a_read_is_done_here() {
    let (town, _callee, mut peer) = occupied("m").await;
    peer.close();
    let deadline = town.deadline(2);
    let args = live::to(id("m"), "go");
    let headers = [("woody.deadline", &deadline[..])];
    let asking = town.ask::<Call>(0, &headers, &args);
    let advancing = async {
        while town.metric(0, "machinegun_forwards_total{outcome=\"unreachable\"}").await == 0 {}
        while town.metric(0, "machinegun_forwards_total{outcome=\"no_owner\"}").await == 0 {
            town.hand.advance(Duration::from_millis(100));
            peer.beat().await;
        }
    };
    let (answer, ()) = tokio::join!(asking, advancing);
    assert_eq!(result::<Call>(&answer), Err(unavailable()));
    let answer = town.ask::<GetMachine>(0, &[], &live::of(id("m"))).await;
    assert_eq!(result::<GetMachine>(&answer).expect("it is there").history.len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_unknown_and_a_read_is_done_again_here() {
    let (town, _callee, peer) = occupied("m").await;
    let losing = async { peer.came().await.hang_up() };
    let args = live::to(id("m"), "go");
    let (answer, ()) = tokio::join!(town.ask::<Call>(0, &[], &args), losing);
    assert_eq!(result::<Call>(&answer), Err(Failure::Status(504, "Result Unknown".to_owned())));
    peer.nobody_came().await;
    let losing = async { peer.came().await.hang_up() };
    let args = live::of(id("m"));
    let (answer, ()) = tokio::join!(town.ask::<GetMachine>(0, &[], &args), losing);
    assert_eq!(result::<GetMachine>(&answer).expect("it is there").history.len(), 1);
    assert_eq!(town.metric(0, "machinegun_forwards_total{outcome=\"lost\"}").await, 2);
}

#[tokio::test]
async fn connections_to_other_instances_are_bounded_and_past_that_a_request_is_refused() {
    let (mut town, _callee) = Town::new();
    town.peer_pool_size = 1;
    town.build(town.storage.clone()).await;
    town.until(|all| all[0]["owned"] == 16).await;
    let peer = Peer::settle(&town.storage).await;
    town.until(|all| all[0]["owned"] == 0).await;
    let args = live::to(id("m"), "go");
    let holding = async {
        let came = peer.came().await;
        let refused = turned(&town, town.ask::<Call>(0, &[], &args)).await;
        came.answer("200 OK", &["content-type: application/x-thrift"], b"").await;
        refused
    };
    let (held, refused) = tokio::join!(town.ask::<Call>(0, &[], &args), holding);
    assert_eq!(held.status, 200);
    assert_eq!(result::<Call>(&refused), Err(unavailable()));
    let reason = refused.header("woody.error-reason").expect("a reason");
    assert!(reason.starts_with("overload: storage.peer_pool_size is reached"), "{reason}");
    assert_eq!(town.metric(0, "machinegun_forwards_total{outcome=\"bound\"}").await, 1);
}

#[tokio::test]
async fn who_is_cut_off_from_the_storage_refuses_steps_at_once() {
    let (mut town, mut callee) = Town::new();
    let link = Link::new(town.storage.clone());
    town.build(link.clone()).await;
    town.until(|all| all[0]["owned"] == 16).await;
    started(&town, &mut callee, 0, "m").await;
    link.set(Way::Broken);
    town.until(|all| all[0]["trusted"] == false).await;
    // The clock stands: nothing is waited for.
    let answer = town.ask::<Call>(0, &[], &live::to(id("m"), "go")).await;
    assert_eq!(result::<Call>(&answer), Err(unavailable()));
    assert_eq!(town.get(0, "/healthz/readiness").await.status, 200);
    link.set(Way::Open);
    town.until(|all| all[0]["trusted"] == true).await;
    assert_eq!(town.shards(0).await["owned"], 16);
}

#[tokio::test]
async fn nobody_is_ready_before_it_has_joined() {
    let (mut town, _callee) = Town::new();
    let link = Link::new(town.storage.clone());
    link.set(Way::Frozen);
    town.build(link.clone()).await;
    let answer = town.get(0, "/healthz/readiness").await;
    assert_eq!((answer.status, &answer.body[..]), (503, &b"{\"readiness\":\"joining\"}"[..]));
    link.set(Way::Open);
    town.until(|all| all[0]["owned"] == 16).await;
    assert_eq!(town.get(0, "/healthz/readiness").await.status, 200);
}

#[tokio::test]
async fn a_service_that_stops_leaves_its_machines_to_the_others() {
    let (mut town, mut callee) = Town::of(2).await;
    let machine = town.id_at(0).await;
    started(&town, &mut callee, 0, &machine).await;
    let stopping = town.houses.remove(0);
    let stopped = timeout(PATIENCE, async {
        let mut stopped = std::pin::pin!(stopping.stop());
        loop {
            tokio::select! {
                biased;
                done = &mut stopped => return done,
                _ = town.get(0, "/health") => town.hand.advance(Duration::from_millis(1)),
            }
        }
    });
    stopped.await.expect("it stops in time").expect("in order");
    let began = town.deadline(0);
    // Long before anybody could have been declared dead.
    town.until(|all| all[0]["owned"] == 16).await;
    assert!(town.deadline(-LEASE_MS / 1_000) < began, "it took a lease time");
    let answer = town.ask::<GetMachine>(0, &[], &live::of(id(&machine))).await;
    assert_eq!(result::<GetMachine>(&answer).expect("it is there").history.len(), 1);
    let heartbeats = town.storage.leases().expect("shared").heartbeats().await.expect("memory");
    assert_eq!(heartbeats.len(), 1);
}
