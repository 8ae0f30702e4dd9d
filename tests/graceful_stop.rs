//! SIGTERM under load: what runs ends with its answer, what is acknowledged stays, and the exit is clean.

mod process;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use machinegun::wire::Event;
use machinegun::woody::Class;
use process::peer::{Failure, Peer};
use process::processor::{Order, Processor, text};
use process::{Folder, Machinegun, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const RUNNING: usize = 8;
const CALLERS: usize = 16;

async fn ready(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("it listens until it has drained");
    let request = b"GET /healthz/readiness HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("a request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.starts_with("HTTP/1.1 200")
}

/// Calls until it is refused; the tokens that were acknowledged, in order.
async fn call_until_refused(peer: Peer, id: String, acknowledged: Arc<watch::Sender<usize>>) -> Vec<String> {
    let mut tokens = Vec::new();
    loop {
        let order = Order::plain(format!("{id}-{}", tokens.len()));
        match peer.call(&id, &order).await {
            Ok(()) => tokens.push(order.token),
            Err(Failure::Failed(error)) if error.class == Class::ResourceUnavailable => return tokens,
            Err(failure) => panic!("{id}: neither done nor surely not done: {failure:?}"),
        }
        acknowledged.send_modify(|it| *it += 1);
    }
}

async fn texts(peer: &Peer, id: &str) -> Vec<String> {
    let machine = soon("GetMachine", peer.machine(id)).await.expect("an answer").expect("a machine");
    let events = machine.history.decoded().map(|event: Result<Event, _>| event.expect("a well-formed event"));
    events.map(|event| text(&event.data)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_running_calls_end_and_loses_nothing_acknowledged() {
    let folder = Folder::new();
    let processor = Processor::start();
    let config = folder.configured(processor.address);
    let service = Machinegun::start(&config).await;
    let peer = Peer::of(service.address);
    let running: Vec<_> = (0..RUNNING).map(|it| format!("running-{it}")).collect();
    let callers: Vec<_> = (0..CALLERS).map(|it| format!("caller-{it}")).collect();
    for id in running.iter().chain(&callers) {
        soon("a Start", peer.start(id, &Order::plain(format!("{id}-start")))).await.expect("started");
    }
    let acknowledged = Arc::new(watch::Sender::new(0));
    let calling = callers.iter().map(|id| call_until_refused(peer.clone(), id.clone(), acknowledged.clone()));
    let calling: Vec<_> = calling.map(tokio::spawn).collect();
    let held: Vec<_> = running
        .iter()
        .map(|id| {
            let (peer, id) = (peer.clone(), id.clone());
            tokio::spawn(
                async move { peer.call(&id, &Order { hold: true, ..Order::plain(format!("{id}-held")) }).await },
            )
        })
        .collect();
    soon("the running Calls", processor.holds(RUNNING)).await;
    soon("the load", acknowledged.subscribe().wait_for(|it| *it >= 200)).await.expect("callers call");

    service.terminate();
    let stopping = async { while ready(service.address).await {} };
    soon("the service to stop being ready", stopping).await;
    let mut tokens = Vec::new();
    for caller in calling {
        tokens.push(soon("a caller's refusal", caller).await.expect("no caller is left in doubt"));
    }
    processor.open();
    for call in join_all(held).await {
        assert_eq!(call.expect("no panic"), Ok(()), "a Call that ran when the stop came");
    }
    let ended = service.ended().await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));

    let service = Machinegun::start(&config).await;
    let peer = Peer::of(service.address);
    for (id, tokens) in callers.iter().zip(tokens) {
        let steps = [format!("{id}-start")].into_iter().chain(tokens);
        let expected: Vec<_> = steps.flat_map(|token| Order::plain(token).texts()).collect();
        assert_eq!(texts(&peer, id).await, expected, "{id}");
    }
    for id in &running {
        let steps = [format!("{id}-start"), format!("{id}-held")];
        let expected: Vec<_> = steps.into_iter().flat_map(|token| Order::plain(token).texts()).collect();
        assert_eq!(texts(&peer, id).await, expected, "{id}");
    }
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
