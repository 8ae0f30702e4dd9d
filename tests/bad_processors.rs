//! Processors that are no good: silent, slow, gone, or without measure. Each costs its own namespace what it must, and
//! nobody else anything.

mod process;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use machinegun::clock::Clock;
use machinegun::wire::{Exception, Machine, MachineStatus};
use machinegun::woody::Class;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use process::peer::{Failure, Peer};
use process::processor::{Order, Processor, timer_text};
use process::{Folder, Machinegun, configuration_with, namespace, soon};

/// How long a call may take whose processor is no good, in milliseconds.
const PATIENCE_MS: i64 = 1_500;

/// More than `woody_server.max_body_size` of these tests.
const HUGE: usize = 100 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Badness {
    /// Takes a request and never answers.
    Silent,
    /// Answers a byte now and then.
    Dribbling,
    /// Closes the connection once it has the request.
    Closing,
    /// Answers with 100 MB, and says so.
    Huge,
    /// Answers without end, and never says how much.
    Endless,
    /// Sends seven megabytes of what could be an answer, and nothing more.
    Hoarding,
}

/// Stands where a processor should.
struct Bad {
    address: SocketAddr,
    asked: watch::Receiver<usize>,
}

// === impl Bad ===

impl Bad {
    async fn start(badness: Badness) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (count, asked) = watch::channel(0);
        let count = Arc::new(count);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    let mut stream = stream;
                    take(&mut stream).await;
                    count.send_modify(|it| *it += 1);
                    // Whoever has enough of it closes.
                    let _ = answer(&mut stream, badness).await;
                });
            }
        });
        Self { address, asked }
    }

    /// Returns once so many requests have come.
    async fn was_asked(&self, times: usize) {
        soon("its turn", self.asked.clone().wait_for(|it| *it >= times)).await.expect("it lives");
    }
}

/// A whole request.
async fn take(stream: &mut TcpStream) {
    let mut read = Vec::new();
    loop {
        if let Some(at) = read.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..at]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if read.len() >= at + 4 + length.expect("a length").parse::<usize>().expect("a number") {
                return;
            }
        }
        if stream.read_buf(&mut read).await.expect("a request") == 0 {
            return;
        }
    }
}

async fn answer(stream: &mut TcpStream, badness: Badness) -> std::io::Result<()> {
    const CHUNK: usize = 1 << 16;
    let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &vec![0; CHUNK], b"\r\n"].concat();
    let head = |framing: String| format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-thrift\r\n{framing}\r\n\r\n");
    let chunked = head("transfer-encoding: chunked".to_owned());
    let clock = Clock::system();
    match badness {
        Badness::Silent => {}
        Badness::Closing => return Ok(()),
        Badness::Dribbling => {
            stream.write_all(head("content-length: 1000000".to_owned()).as_bytes()).await?;
            loop {
                stream.write_all(b"x").await?;
                clock.sleep_until(clock.now() + 10).await;
            }
        }
        Badness::Huge => {
            stream.write_all(head(format!("content-length: {HUGE}")).as_bytes()).await?;
            for _ in 0..HUGE / CHUNK {
                stream.write_all(&chunk[..CHUNK]).await?;
            }
        }
        Badness::Endless => {
            stream.write_all(chunked.as_bytes()).await?;
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Badness::Hoarding => {
            stream.write_all(chunked.as_bytes()).await?;
            for _ in 0..(7 << 20) / CHUNK {
                stream.write_all(&chunk).await?;
            }
        }
    }
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// A service with a good namespace, and one whose machines are begun by the good processor and whose Calls and timers go
/// to the bad one.
async fn service(folder: &Folder, good: &Processor, bad: &Bad) -> Machinegun {
    let own = format!("    processors: {{init: {{url: \"http://{}/processor\"}}}}\n", good.address);
    let namespaces = namespace("good", good.address) + &namespace("bad", bad.address) + &own;
    let limits = "limits: {bodies: {requests: 16M, replies: 16M}}\n";
    let config = configuration_with(&folder.store(), &namespaces) + limits;
    let config = config.replace("port: 0}", "port: 0, max_body_size: 8M}");
    Machinegun::start(&folder.configured_as(&config)).await
}

async fn machine(peer: &Peer, id: &str) -> Machine {
    soon("GetMachine", peer.machine(id)).await.expect("an answer").expect("the machine")
}

fn failure(machine: &Machine) -> Option<String> {
    match &machine.status {
        Some(MachineStatus::Failed(failed)) => {
            Some(String::from_utf8_lossy(failed.reason.as_deref().unwrap_or_default()).into_owned())
        }
        _ => None,
    }
}

/// What the log and the API say of a bad processor, and that its neighbours go on while it is asked.
async fn each_call_ends_and_others_go_on(badness: Badness) {
    let (folder, good, bad) = (Folder::new(), Processor::start(), Bad::start(badness).await);
    let service = service(&folder, &good, &bad).await;
    let peer = Peer::of(service.address);
    let (neighbour, peer) = (peer.in_namespace("good"), peer.in_namespace("bad"));
    soon("Start", neighbour.start("machine", &Order::plain("start"))).await.expect("started");
    soon("Start", peer.start("machine", &Order::plain("start"))).await.expect("started");
    let timed = Order { timer: Some(0), ..Order::plain("timed") };
    soon("Start", neighbour.start("timed", &timed)).await.expect("started");

    let impatient = peer.with_patience(PATIENCE_MS);
    let order = Order::plain("never");
    let asked = async { soon("an end", impatient.call("machine", &order)).await };
    let meanwhile = async {
        bad.was_asked(1).await;
        for number in 0..20 {
            let order = Order::plain(format!("neighbour-{number}"));
            soon("a neighbour's Call", neighbour.call("machine", &order)).await.expect("done");
        }
        soon("a neighbour's timer", good.answered(&timer_text("timed"))).await;
        soon("Start", peer.start("another", &Order::plain("start"))).await.expect("a machine beside it");
        machine(&peer, "machine").await
    };
    let (answer, _) = tokio::join!(asked, meanwhile);
    let after = machine(&peer, "machine").await;
    match badness {
        Badness::Huge | Badness::Endless => {
            assert_eq!(answer, Err(Failure::Thrown(Exception::MachineFailed)));
            let reason = failure(&after).expect("a failed machine");
            assert!(reason.contains("reply larger than 8388608 bytes"), "{reason}");
        }
        _ => {
            let Err(Failure::Failed(error)) = answer else { panic!("{badness:?}: {answer:?}") };
            // Whether the caller's patience or the processor's time ends first, is a matter of microseconds.
            let silent = matches!(badness, Badness::Silent | Badness::Dribbling);
            let expected = error.class == Class::ResourceUnavailable || silent && error.class == Class::ResultUnknown;
            assert!(expected, "{badness:?}: {error}");
            assert_eq!(failure(&after), None);
        }
    }
    assert_eq!(after.history.decoded().count(), 1, "nothing was stored");
    let healthy = service.get("/health").await;
    assert_eq!(healthy.0, 200, "{healthy:?}");
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_never_answers_harms_nobody_else() {
    each_call_ends_and_others_go_on(Badness::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_answers_a_byte_now_and_then_harms_nobody_else() {
    each_call_ends_and_others_go_on(Badness::Dribbling).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_closes_at_once_harms_nobody_else() {
    each_call_ends_and_others_go_on(Badness::Closing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_sends_a_hundred_megabytes_fails_its_machine_alone() {
    each_call_ends_and_others_go_on(Badness::Huge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_sends_without_end_fails_its_machine_alone() {
    each_call_ends_and_others_go_on(Badness::Endless).await;
}

/// A hundred calls whose replies are seven megabytes each, and never end: what does not fit is refused, and is no failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_take_no_more_memory_than_they_may_and_one_namespace_leaves_others_some() {
    const MACHINES: usize = 100;
    let (folder, good, bad) = (Folder::new(), Processor::start(), Bad::start(Badness::Hoarding).await);
    let service = service(&folder, &good, &bad).await;
    let peer = Peer::of(service.address);
    let (neighbour, peer) = (peer.in_namespace("good"), peer.in_namespace("bad").with_patience(5_000));
    soon("Start", neighbour.start("machine", &Order::plain("start"))).await.expect("started");
    let ids: Vec<_> = (0..MACHINES).map(|number| format!("machine-{number}")).collect();
    for id in &ids {
        soon("Start", peer.start(id, &Order::plain("start"))).await.expect("started");
    }
    let before = service.peak_memory();
    let order = Order::plain("never");
    let calls = join_all(ids.iter().map(|id| soon("an end", peer.call(id, &order))));
    let meanwhile = async {
        bad.was_asked(MACHINES).await;
        for number in 0..20 {
            let order = Order::plain(format!("neighbour-{number}"));
            soon("a neighbour's Call", neighbour.call("machine", &order)).await.expect("done");
        }
    };
    let (answers, ()) = tokio::join!(calls, meanwhile);
    let mut refused = 0;
    for answer in answers {
        let Err(Failure::Failed(error)) = answer else { panic!("there was no answer: {answer:?}") };
        let overload = error.details.contains("overload: limits.bodies.replies is reached");
        // The one that found room has sent too little by the deadline.
        assert!(
            if overload { error.class == Class::ResourceUnavailable } else { error.details.contains("timeout") },
            "{error}"
        );
        refused += usize::from(overload);
    }
    assert!(refused >= MACHINES - 2, "{refused} were refused");
    let grown = service.peak_memory() - before;
    println!("{refused} of {MACHINES} replies were refused, memory grew by {grown} bytes");
    assert!(grown < 300 << 20, "memory grew by {grown} bytes for replies that may take 16M");
    for id in &ids {
        assert_eq!(failure(&machine(&peer, id).await), None, "{id} is not at fault");
    }
    let (_, _, metrics) = service.get("/metrics").await;
    let over = metrics.lines().find_map(|line| line.strip_prefix("machinegun_replies_over_total "));
    assert!(over.is_some_and(|over| over.parse::<usize>().is_ok_and(|over| over >= refused)), "{over:?} {refused}");
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
