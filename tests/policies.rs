//! Keys of the configuration that change what a service does at its edges: on a real port, with a real processor.

mod live;

use std::time::Duration;

use live::processor::{NOTHING, signed, to_signal};
use live::{Callee, Failure, Live, NOW, PATIENCE, namespace, start};
use machinegun::clock::Clock;
use machinegun::config::{NamespaceSettings, Settings, StorageSettings};
use machinegun::wire::{
    self, ComplexAction, ProcessSignal, SetTimerAction, Signal, SignalResult, Start, Timer, TimerAction, Void,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn service(change: impl FnOnce(&mut Settings, &mut NamespaceSettings)) -> (Live, Callee) {
    let clock = Clock::manual(NOW);
    let processor = Callee::listen(&clock.0);
    let mut settings = Settings::default_with(StorageSettings::Memory);
    let mut namespace = namespace(&processor.url);
    change(&mut settings, &mut namespace);
    (Live::start_with(clock, settings.with_namespace(namespace)).await, processor)
}

#[tokio::test]
async fn the_timeout_of_a_timer_is_its_processors_deadline_if_it_is_honoured() {
    for (honoured, allowed) in [(false, 60_000), (true, 7_000)] {
        let (live, mut processor) = service(|_, namespace| namespace.honour_timer_timeout = honoured).await;
        let soon = SetTimerAction { timer: Timer::Timeout(5), range: None, timeout: Some(7) };
        let init = processor.answer::<ProcessSignal>(|_| SignalResult {
            action: ComplexAction { timer: Some(TimerAction::Set(soon)), ..NOTHING },
            ..to_signal(signed("init"))
        });
        assert_eq!(tokio::join!(live.ask::<Start>(start("ID", "")), init).0, Ok(Void));
        live.advance(5);
        let heard = processor.answer::<ProcessSignal>(|asked| {
            assert!(matches!(asked.a.signal, Signal::Timeout(_)));
            to_signal(signed("timeout"))
        });
        assert_eq!(heard.await.context.deadline, Some(NOW + 5_000 + allowed));
        live.stop().await;
    }
}

#[tokio::test]
async fn a_worker_that_dies_by_suicide_probability_is_a_result_unknown_and_counted() {
    let (live, mut processor) = service(|_, namespace| namespace.suicide_probability = 1.0).await;
    let init = processor.answer::<ProcessSignal>(|_| to_signal(signed("init")));
    let answer = tokio::join!(live.ask::<Start>(start("ID", "")), init).0;
    assert_eq!(answer, Err(Failure::Status(504, "Result Unknown".to_owned())));
    let line = live.metric("mg_machine_lifecycle_changes_total{change=\"committed_suicide\",namespace=\"NS\"}").await;
    assert!(line.ends_with(" 1"), "{line}");
    live.stop().await;
}

#[tokio::test]
async fn the_quota_of_the_configuration_is_what_schedulers_have() {
    let (live, _processor) = service(|settings, _| settings.limits.scheduler_tasks = 7).await;
    for name in ["timers", "timers_retries", "overseer", "notification"] {
        let of = format!("mg_scheduler_task_quota_usage{{name=\"{name}\",namespace=\"NS\",status=\"reserved\"}}");
        let line = live.metric(&of).await;
        assert!(line.ends_with(" 7"), "{line}");
    }
    live.stop().await;
}

#[tokio::test]
async fn an_exchange_past_idle_timeout_is_cut_and_its_step_goes_on() {
    let (live, mut processor) =
        service(|settings, _| settings.woody_server.idle_timeout = Some(Duration::from_millis(500))).await;
    let body = wire::write_call::<Start>(&start("ID", ""), 0);
    let headers: String = live::ids().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("POST /v1/automaton HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    let mut client = TcpStream::connect(live.address()).await.expect("the service listens");
    client.write_all(&[head.as_bytes(), &body].concat()).await.expect("the request goes out");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("closed in time");
    assert!(closed.is_err() || answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    processor.answer::<ProcessSignal>(|_| to_signal(signed("init"))).await;
    let line = live.metric("mg_machine_lifecycle_changes_total{change=\"created\",namespace=\"NS\"} 1").await;
    assert!(line.ends_with(" 1"), "{line}");
    live.stop().await;
}
