//! A namespace may have a processor of its own for each kind of step; the others go to the namespace's.

mod live;

use live::processor::{signed, to_call, to_call_with_timer, to_repair, to_signal};
use live::{Callee, Failure, Live, NOW, id, namespace, of, start, to};
use machinegun::clock::Clock;
use machinegun::config::{ProcessorSettings, StepProcessors};
use machinegun::wire::{
    Call, Exception, GetMachine, Notify, ProcessCall, ProcessRepair, ProcessSignal, Protocol, Repair, Signal, Start,
    Timer, TimerAction, Value, Void,
};

/// The namespace's, and the one that some kinds of steps have of their own.
struct Processors {
    all: Callee,
    own: Callee,
}

// === impl Processors ===

impl Processors {
    fn new(clock: &Clock) -> Self {
        Self { all: Callee::listen(clock), own: Callee::listen(clock) }
    }

    fn of(&mut self, own: bool) -> &mut Callee {
        if own { &mut self.own } else { &mut self.all }
    }
}

/// Takes a machine through every kind of step, each of which has a processor of its own or not.
async fn every_step([init, call, repair, timeout, notification]: [bool; 5]) {
    let clock = Clock::manual(NOW);
    let mut asked = Processors::new(&clock.0);
    let url = asked.own.url.clone();
    let own = |own: bool| own.then(|| ProcessorSettings::new(url.clone()));
    let mut namespace = namespace(&asked.all.url);
    namespace.processors = StepProcessors {
        init: own(init),
        call: own(call),
        repair: own(repair),
        timeout: own(timeout),
        notification: own(notification),
    };
    let live = Live::start(clock, vec![namespace]).await;

    let answer = asked.of(init).answer::<ProcessSignal>(|it| {
        assert!(matches!(it.a.signal, Signal::Init(_)));
        to_signal(signed("init"))
    });
    assert_eq!(tokio::join!(live.ask::<Start>(start("ID", "")), answer).0, Ok(Void));

    let soon =
        TimerAction::Set(machinegun::wire::SetTimerAction { timer: Timer::Timeout(5), range: None, timeout: None });
    let answer = asked.of(call).answer::<ProcessCall>(|_| to_call_with_timer(signed("call"), Some(soon)));
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "")), answer).0, Ok(Value::str("done")));

    live.advance(5);
    let answer = asked.of(timeout).answer::<ProcessSignal>(|it| {
        assert!(matches!(it.a.signal, Signal::Timeout(_)));
        to_signal(signed("timeout"))
    });
    answer.await;

    live.ask::<Notify>(to(id("ID"), "")).await.expect("accepted");
    let answer = asked.of(notification).answer::<ProcessSignal>(|it| {
        assert!(matches!(it.a.signal, Signal::Notification(_)));
        to_signal(signed("notification"))
    });
    answer.await;

    let failed = Err(Failure::Thrown(Exception::MachineFailed));
    let fails = asked.of(call).fail::<ProcessCall>();
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "")), fails).0, failed);
    let answer = asked.of(repair).answer::<ProcessRepair>(|_| to_repair(signed("repair")));
    assert_eq!(tokio::join!(live.ask::<Repair>(to(id("ID"), "")), answer).0, Ok(Value::str("mended")));

    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    let texts = ["init", "call", "timeout", "notification", "repair"].map(Value::str);
    let events: Vec<_> = machine.history.decoded().map(|event| event.expect("an event").data).collect();
    assert_eq!(events, texts);
    asked.all.was_not_asked();
    asked.own.was_not_asked();
    live.stop().await;
}

#[tokio::test]
async fn each_kind_of_step_goes_to_its_own_processor_and_the_rest_to_the_namespaces() {
    for own in 0..5 {
        every_step(std::array::from_fn(|kind| kind == own)).await;
        every_step(std::array::from_fn(|kind| kind != own)).await;
    }
}

#[tokio::test]
async fn a_repair_that_is_a_signal_goes_to_the_processor_of_repairs() {
    let clock = Clock::manual(NOW);
    let mut asked = Processors::new(&clock.0);
    let mut namespace = namespace(&asked.all.url);
    namespace.protocol = Protocol::Damsel;
    namespace.processors.repair = Some(ProcessorSettings::new(asked.own.url.clone()));
    let live = Live::start(clock, vec![namespace]).await;
    let answer = asked.all.answer::<ProcessSignal>(|_| to_signal(signed("init")));
    assert_eq!(tokio::join!(live.ask::<Start>(start("ID", "")), answer).0, Ok(Void));
    let failed = Err(Failure::Thrown(Exception::MachineFailed));
    let fails = asked.all.fail::<ProcessCall>();
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "")), fails).0, failed);
    let answer = asked.own.answer::<ProcessSignal>(|_| to_signal(signed("repair")));
    assert_eq!(tokio::join!(live.ask::<machinegun::wire::LegacyRepair>(to(id("ID"), "")), answer).0, Ok(Void));
    let answer = asked.all.answer::<ProcessCall>(|_| to_call(signed("call")));
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "")), answer).0, Ok(Value::str("done")));
    live.stop().await;
}
