//! Each generation of the interface, as its processors and callers speak it: they know the fields and variants of their
//! own generation alone, and what that generation requires must be there.

#[path = "../live/mod.rs"]
mod live;

mod current;
mod damsel;
mod y2021;

use live::{Callee, Failure, Live, NOW, id, namespace, of};
use machinegun::clock::Clock;
use machinegun::config::NamespaceSettings;
use machinegun::wire::{
    DescriptorParams, Direction, Exception, HistoryRange, Method, Protocol, SetTimerAction, Timer, TimerAction,
};

async fn world(protocol: Protocol) -> (Live, Callee) {
    world_with(protocol, |_| {}).await
}

async fn world_with(protocol: Protocol, change: impl FnOnce(&mut NamespaceSettings)) -> (Live, Callee) {
    let clock = Clock::manual(NOW);
    let processor = Callee::listen(&clock.0);
    let mut namespace = namespace(&processor.url);
    namespace.protocol = protocol;
    change(&mut namespace);
    (Live::start(clock, vec![namespace]).await, processor)
}

async fn strict_world(protocol: Protocol) -> (Live, Callee) {
    world_with(protocol, |namespace| namespace.strict_ranges = true).await
}

/// What GetMachine of a generation throws for a machine `ID` with one event, after each of these.
async fn thrown<M: Method<Args = DescriptorParams>>(live: &Live, after: &[Option<i64>]) -> Vec<Option<Failure>> {
    let mut thrown = Vec::new();
    for direction in [Direction::Forward, Direction::Backward] {
        for after in after {
            let mut args = of(id("ID"));
            args.desc.range = HistoryRange { after: *after, limit: Some(7), direction };
            thrown.push(live.ask::<M>(args).await.err());
        }
    }
    thrown
}

/// Whether what never was an event is not found, and what is one is.
async fn is_strict<M: Method<Args = DescriptorParams>>(live: &Live) -> bool {
    let (never, ever) = ([i64::MIN, -1, 0, 2, i64::MAX].map(Some), [None, Some(1)]);
    let not_found = Some(Failure::Thrown(Exception::EventNotFound));
    let found = thrown::<M>(live, &ever).await;
    assert!(found.iter().all(Option::is_none), "{found:?}");
    let lost = thrown::<M>(live, &never).await;
    let strict = lost.iter().all(|lost| *lost == not_found);
    assert!(strict || lost.iter().all(Option::is_none), "{lost:?}");
    strict
}

fn in_seconds(seconds: i32) -> SetTimerAction {
    SetTimerAction { timer: Timer::Timeout(seconds), range: Some(HistoryRange::ALL), timeout: Some(30) }
}

fn timer(seconds: i32) -> Option<TimerAction> {
    Some(TimerAction::Set(in_seconds(seconds)))
}
