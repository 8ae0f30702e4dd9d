//! What clients can take of a service: bodies, memory, connections. It says no in time, and goes on for the others.

mod process;

use futures_util::future::join_all;
use machinegun::woody::Class;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use process::peer::{Answer, Failure, Peer};
use process::processor::{Order, Processor, text};
use process::{Folder, Machinegun, configuration, soon};

const HEAD: &str = "POST /v1/automaton HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-thrift\r\nwoody.trace-id: t\r\n\
    woody.span-id: s\r\nwoody.parent-id: p\r\n";

/// In debug builds; in all that the allocator keeps, too.
const GENEROUS: u64 = 300 << 20;

async fn connect(service: &Machinegun) -> TcpStream {
    soon("a connection", TcpStream::connect(service.address)).await.expect("the service listens")
}

/// The status line and headers of the next answer.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        soon("an answer", stream.read_exact(&mut byte)).await.expect("an answer");
        head.extend(byte);
    }
    String::from_utf8(head).expect("ASCII")
}

fn metric(metrics: &str, name: &str) -> u64 {
    let found = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

#[track_caller]
fn assert_overload<T: std::fmt::Debug>(answer: Answer<T>, setting: &str) {
    let Err(Failure::Failed(error)) = &answer else { panic!("it was done: {answer:?}") };
    assert_eq!(error.class, Class::ResourceUnavailable, "{error}");
    assert!(error.details.contains(&format!("overload: {setting} is reached")), "{error}");
}

async fn texts(peer: &Peer, id: &str) -> Vec<String> {
    let machine = soon("GetMachine", peer.machine(id)).await.expect("an answer").expect("the machine");
    machine.history.decoded().map(|event| text(&event.expect("a well-formed event").data)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_take_no_more_memory_than_they_may_and_small_ones_go_on() {
    const CLIENTS: usize = 100;
    let (folder, processor) = (Folder::new(), Processor::start());
    let config = configuration(&folder.store(), processor.address).replace("port: 0}", "port: 0, max_body_size: 8M}");
    let config = config + "limits: {bodies: {requests: 16M, replies: 16M}}\n";
    let service = Machinegun::start(&folder.configured_as(&config)).await;
    let peer = Peer::of(service.address);
    soon("Start", peer.start("machine", &Order::plain("start"))).await.expect("started");
    let before = service.peak_memory();
    // Seven of eight megabytes, in chunks or all announced, and then nothing more.
    let upload = async |number: usize| {
        let mut stream = connect(&service).await;
        let (framing, chunk) = match number % 2 {
            0 => (format!("content-length: {}\r\n\r\n", 8 << 20), vec![0; 1 << 16]),
            _ => (
                "transfer-encoding: chunked\r\n\r\n".to_owned(),
                [b"10000\r\n", &vec![0; 1 << 16][..], b"\r\n"].concat(),
            ),
        };
        stream.write_all(format!("{HEAD}{framing}").as_bytes()).await.expect("a head");
        for _ in 0..7 * 16 {
            // Who is refused is closed in the end.
            if stream.write_all(&chunk).await.is_err() {
                break;
            }
        }
        stream
    };
    let hoarders = soon("the uploads", join_all((0..CLIENTS).map(upload))).await;
    for number in 0..20 {
        soon("Call", peer.call("machine", &Order::plain(format!("{number}")))).await.expect("done");
    }
    let (_, _, metrics) = service.get("/metrics").await;
    let (held, refused) =
        (metric(&metrics, "machinegun_request_bytes"), metric(&metrics, "machinegun_requests_over_total"));
    let grown = service.peak_memory() - before;
    println!("{held} bytes are held, {refused} of {CLIENTS} were refused, memory grew by {grown} bytes");
    assert!(held <= 16 << 20, "{held} bytes are held");
    assert!(refused >= CLIENTS as u64 - 3, "{refused} were refused");
    assert!(grown < GENEROUS, "memory grew by {grown} bytes for bodies that may take 16M");
    drop(hoarders);
    let all_given_back = async { while metric(&service.get("/metrics").await.2, "machinegun_request_bytes") > 0 {} };
    soon("the end of all bodies", all_given_back).await;
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_memory_is_short_work_is_refused_and_reads_probes_and_metrics_go_on() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let config = configuration(&folder.store(), processor.address);
    let service = Machinegun::start(&folder.configured_as(&config)).await;
    let peer = Peer::of(service.address);
    let timed = Order { timer: Some(2), ..Order::plain("timed") };
    soon("Start", peer.start("timed", &timed)).await.expect("started");
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));

    // Every host uses that much.
    let short = format!("{config}limits: {{memory: {{type: total, value: 1%}}}}\n");
    let service = Machinegun::start(&folder.configured_as(&short)).await;
    let peer = Peer::of(service.address);
    let refusing = async { while metric(&service.get("/metrics").await.2, "machinegun_memory_refusing") == 0 {} };
    soon("the guard's second look", refusing).await;
    assert_overload(soon("Start", peer.start("new", &Order::plain("x"))).await, "limits.memory");
    assert_overload(soon("Call", peer.call("timed", &Order::plain("x"))).await, "limits.memory");
    assert_overload(soon("Notify", peer.notify("timed", &Order::plain("x"))).await, "limits.memory");
    let whole = texts(&peer, "timed").await;
    assert!(whole.starts_with(&timed.texts()), "{whole:?}");
    assert_eq!(soon("GetMachine", peer.machine("new")).await, Ok(None));
    let (status, _, health) = service.get("/health").await;
    assert_eq!(status, 503, "{health}");
    assert_eq!(service.get("/healthz/readiness").await.0, 200);
    let (_, _, metrics) = service.get("/metrics").await;
    assert!(metric(&metrics, "machinegun_memory_used_bytes") < metric(&metrics, "machinegun_memory_total_bytes"));
    assert_eq!(metric(&metrics, "machinegun_refusals_total{bound=\"limits.memory\",namespace=\"payments\"}"), 3);
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));

    let service = Machinegun::start(&folder.configured_as(&config)).await;
    let peer = Peer::of(service.address);
    soon("the timer's event", async { while texts(&peer, "timed").await.len() < 2 {} }).await;
    soon("Start", peer.start("new", &Order::plain("x"))).await.expect("started");
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_connections_that_are_kept_leave_room_for_work_probes_and_metrics() {
    const KEPT: usize = 5_000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("as many files as the host allows");
    let needed = KEPT as u64 + 500;
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(
        most >= needed,
        "this test opens {KEPT} connections: raise the hard limit on open files ({most}) to {needed}"
    );
    let (folder, processor) = (Folder::new(), Processor::start());
    // As many shells have it.
    let config = folder.configured(processor.address);
    let shell = ["bash", "-c", "ulimit -Sn 1024; exec \"$0\" \"$@\""];
    let service = Machinegun::start_under(&shell, &config).await;
    let peer = Peer::of(service.address);
    let held = Order { hold: true, ..Order::plain("held") };
    soon("Start", peer.start("machine", &Order::plain("start"))).await.expect("started");
    let working = tokio::spawn({
        let (peer, held) = (peer.clone(), held.clone());
        async move { peer.call("machine", &held).await }
    });
    soon("the step", processor.holds(1)).await;

    let mut kept = Vec::new();
    for number in 0..KEPT {
        let mut stream = connect(&service).await;
        // Half of them are as clients keep them between two requests.
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /healthz/liveness HTTP/1.1\r\nhost: x\r\n\r\n").await;
        }
        kept.push(stream);
    }
    // A client's, a probe's and a scrape's, each on a connection of its own.
    let fresh = Peer::of(service.address);
    let works = async {
        loop {
            match fresh.start("new", &Order::plain("new")).await {
                Ok(()) => return,
                // Until some of the others have been idle for long enough.
                Err(Failure::Failed(error)) => assert_eq!(error.class, Class::ResourceUnavailable, "{error}"),
                Err(thrown) => panic!("{thrown:?}"),
            }
        }
    };
    soon("Start", works).await;
    let reached = async {
        for path in ["/health", "/healthz/readiness"] {
            let mut stream = connect(&service).await;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("asked");
            let answer = head(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        }
    };
    soon("probes", reached).await;
    let (_, _, metrics) = soon("metrics", service.get("/metrics")).await;
    assert!(metric(&metrics, "machinegun_connections") <= 2 * 1024 + 64);
    assert!(metric(&metrics, "machinegun_connections_evicted_total") > 0);
    let open = std::fs::read_dir(format!("/proc/{}/fd", service.pid().as_raw_nonzero())).expect("its files").count();
    assert!(open < 2 * 1024 + 2 * 64 + 512, "{open} files are open");
    // Who waits for an answer was never asked to go.
    processor.open();
    soon("the held Call", working).await.expect("no panic").expect("done");
    drop(kept);
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
