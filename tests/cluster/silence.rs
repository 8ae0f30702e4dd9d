//! A table that takes requests and answers none, for longer than all leases, and then is there again.

use std::net::SocketAddr;
use std::time::Duration;

use machinegun::clock::Clock;
use machinegun::service::Running;
use machinegun::storage::dynamodb::{DynamodbOptions, schema};
use machinegun::wire::{
    self, Call, GetMachine, MachineStatus, ProcessCall, ProcessSignal, SetTimerAction, Start, Timer, TimerAction,
};

use crate::live::http::{self, Answer};
use crate::live::processor::{signed, to_call, to_call_with_timer, to_signal};
use crate::live::{self, Callee, PATIENCE, id};
use crate::proxy::Proxy;
use crate::services;
use crate::table::{ask, health, serve, until_each_owns};

const MACHINES: usize = 4;
/// Longer than the leases last.
const TIMER_S: i32 = 10;

async fn call(address: SocketAddr, machine: usize) -> Answer {
    let (ids, body) = (live::ids(), wire::write_call::<Call>(&live::to(id(&machine.to_string()), "go"), 0));
    let exchange = http::exchange(address, "POST /v1/automaton", &ids, &body);
    // Less than the deadline of one that brings none.
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer before the deadline")
}

async fn until_trusted(addresses: &[SocketAddr], wanted: bool) {
    let wait = async {
        for address in addresses {
            while health(*address).await["shards"]["trusted"] != wanted {}
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("leases that run out, or hold again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_silent_for_a_while_costs_refusals_and_delay_and_nothing_else() {
    let clock = Clock::system();
    let direct = DynamodbOptions { shards: 16, ..services::table_at(&services::dynamodb()) };
    schema::create(&direct, &clock).await.expect("a table is made");
    let proxy = Proxy::before(&services::dynamodb()).await;
    let (endpoint_url, request_timeout) = (Some(proxy.endpoint.clone()), Duration::from_secs(1));
    let table = DynamodbOptions { endpoint_url, request_timeout, ..direct };
    let mut callee = Callee::listen(&clock);
    let houses = [serve(&table, &callee.url).await, serve(&table, &callee.url).await];
    let addresses: Vec<_> = houses.iter().map(Running::address).collect();
    until_each_owns(&addresses, 8).await;

    let timer = TimerAction::Set(SetTimerAction { timer: Timer::Timeout(TIMER_S), range: None, timeout: None });
    for number in 0..MACHINES {
        let at = addresses[number % 2];
        let args = live::start(&number.to_string(), "args");
        tokio::join!(ask::<Start>(at, &args), callee.answer::<ProcessSignal>(|_| to_signal(signed("started"))));
        let args = live::to(id(&number.to_string()), "go");
        let answered = callee.answer::<ProcessCall>(|_| to_call_with_timer(signed("armed"), Some(timer.clone())));
        tokio::join!(ask::<Call>(at, &args), answered);
    }
    let due = clock.now() + i64::from(TIMER_S) * 1_000;
    proxy.hang(usize::MAX);
    until_trusted(&addresses, false).await;
    // Every one of these is refused, and the timers' time comes.
    let mut refused = 0;
    while refused < 2 * MACHINES || clock.now() < due {
        for address in &addresses {
            let answer = call(*address, refused % MACHINES).await;
            let class = answer.header("woody.error-class");
            assert_eq!((answer.status, class), (503, Some("Resource Unavailable")), "{answer:?}");
        }
        refused += 1;
    }
    callee.was_not_asked();

    proxy.mend();
    until_trusted(&addresses, true).await;
    for _ in 0..MACHINES {
        callee.answer::<ProcessSignal>(|_| to_signal(signed("late"))).await;
    }
    for number in 0..MACHINES {
        let at = addresses[number % 2];
        let args = live::to(id(&number.to_string()), "go");
        tokio::join!(ask::<Call>(at, &args), callee.answer::<ProcessCall>(|_| to_call(signed("again"))));
        let machine = ask::<GetMachine>(at, &live::of(id(&number.to_string()))).await;
        assert!(matches!(machine.status, Some(MachineStatus::Working(_))), "{:?}", machine.status);
        assert_eq!(machine.history.len(), 4, "machine {number}");
    }
    callee.was_not_asked();
    for house in houses {
        tokio::time::timeout(PATIENCE, house.stop()).await.expect("it stops in time").expect("in order");
    }
}
