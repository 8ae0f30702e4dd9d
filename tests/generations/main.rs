//! Each generation of the interface, as its processors and callers speak it: they know the fields and variants of their
//! own generation alone, and what that generation requires must be there.

#[path = "../live/mod.rs"]
mod live;

mod current;
mod damsel;
mod y2021;

use live::{Callee, Live, NOW, namespace};
use machinegun::clock::Clock;
use machinegun::wire::{HistoryRange, Protocol, SetTimerAction, Timer, TimerAction};

async fn world(protocol: Protocol) -> (Live, Callee) {
    let clock = Clock::manual(NOW);
    let processor = Callee::listen(&clock.0);
    let mut namespace = namespace(&processor.url);
    namespace.protocol = protocol;
    (Live::start(clock, vec![namespace]).await, processor)
}

fn in_seconds(seconds: i32) -> SetTimerAction {
    SetTimerAction { timer: Timer::Timeout(seconds), range: Some(HistoryRange::ALL), timeout: Some(30) }
}

fn timer(seconds: i32) -> Option<TimerAction> {
    Some(TimerAction::Set(in_seconds(seconds)))
}
