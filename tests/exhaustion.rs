//! What the system runs out of: space, the size of a file, file descriptors. What was acknowledged stands, what can't be
//! done is refused in plain words, and all goes on when there is enough again.

#[path = "crash/mod.rs"]
mod crash;
mod process;

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use machinegun::clock::Clock;
use machinegun::woody::Class;
use rustix::fs::FallocateFlags;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crash::client::Client;
use crash::dice::Dice;
use crash::life::read;
use crash::round::ended_under_load;
use process::peer::{Answer, Failure, Peer};
use process::processor::{Order, Processor, text, timer_text};
use process::{Folder, Machinegun, configuration, soon};

/// The most that is taken of the disk for a moment.
const MOST_TAKEN: u64 = 8 << 30;

/// How long a call may try, in milliseconds: the store is asked again until then.
const PATIENCE_MS: i64 = 5_000;

const ROUNDS: u64 = 3;
const CLIENTS: u64 = 4;

fn free_bytes(folder: &Path) -> u64 {
    let found = rustix::fs::statvfs(folder).expect("the folder's volume");
    found.f_bavail * found.f_frsize
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(answer: Answer<T>) {
    let Err(Failure::Failed(error)) = &answer else { panic!("there was space for it: {answer:?}") };
    assert_eq!(error.class, Class::ResourceUnavailable, "{error}");
    assert!(error.details.contains("are kept in reserve: no writes until space is made"), "{error}");
}

async fn texts(peer: &Peer, id: &str) -> Vec<String> {
    let machine = soon("GetMachine", peer.machine(id)).await.expect("an answer").expect("the machine");
    read(&machine).iter().map(|event| text(&event.data)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_space_writes_are_refused_and_reads_go_on_until_there_is_some_again() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let taken = (free_bytes(folder.path()) / 4).min(MOST_TAKEN);
    let reserve = free_bytes(folder.path()) - taken / 2;
    let text = configuration(&folder.store(), processor.address)
        .replace("free_space_reserve: 64M", &format!("free_space_reserve: {reserve}B"));
    let service = Machinegun::start(&folder.configured_as(&text)).await;
    let peer = Peer::of(service.address);
    let impatient = peer.with_patience(PATIENCE_MS);
    let order = Order::plain("start");
    soon("Start", peer.start("kept", &order)).await.expect("started");
    // Its timer is due while nothing can be written, unless all of this is slow.
    let timed = Order { timer: Some(2), ..Order::plain("timed") };
    soon("Start", peer.start("timed", &timed)).await.expect("started");
    soon("Start", peer.start("removed", &Order::plain("other"))).await.expect("started");

    let filler = folder.path().join("filler");
    let file = std::fs::File::create(&filler).expect("a file");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, taken).expect("a file system that can reserve space");
    // The volume is looked at once a second at most.
    let mut steps = order.texts();
    for number in 1.. {
        let order = Order::plain(format!("filling-{number}"));
        match soon("Call", impatient.call("kept", &order)).await {
            Ok(()) => steps.extend(order.texts()),
            refused => {
                is_refused(refused);
                break;
            }
        }
    }
    let nothing = Order::plain("nothing");
    is_refused(soon("Start", impatient.start("new", &nothing)).await);
    is_refused(soon("Notify", impatient.notify("kept", &nothing)).await);
    is_refused(soon("Call", impatient.call("kept", &nothing)).await);
    assert_eq!(texts(&peer, "kept").await, steps);
    soon("the timer", processor.answered(&timer_text("timed"))).await;
    assert_eq!(soon("GetMachine", peer.machine("new")).await, Ok(None));
    // What makes room is done.
    soon("Remove", peer.remove("removed")).await.expect("removed");

    drop(file);
    std::fs::remove_file(&filler).expect("the file goes");
    for number in 1.. {
        let order = Order::plain(format!("again-{number}"));
        match soon("Call", impatient.call("kept", &order)).await {
            Ok(()) => {
                steps.extend(order.texts());
                break;
            }
            refused => is_refused(refused),
        }
    }
    assert_eq!(texts(&peer, "kept").await, steps);
    let whole = [timed.texts(), vec![timer_text("timed")]].concat();
    soon("the timer's event", async { while texts(&peer, "timed").await != whole {} }).await;
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}

/// The length of the newest journal: a store that was opened anew has nothing behind its last batch.
fn journal_length(store: &Path) -> u64 {
    let journals = std::fs::read_dir(store.join("data")).expect("the store").map(|it| it.expect("a file").path());
    let journals = journals.filter(|path| path.extension().is_some_and(|it| it == "jnl"));
    let number = |path: &std::path::PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let newest = journals.max_by_key(number).expect("a journal");
    newest.metadata().expect("its size").len()
}

fn limit(pid: Pid, resource: Resource, most: u64) {
    let old = rustix::process::getrlimit(resource);
    let new = Rlimit { current: Some(most), maximum: old.maximum };
    prlimit(Some(pid), resource, new).expect("one may limit one's own processes");
}

/// A disk that takes no more in the middle of a batch leaves it torn, and the store can't know what the disk has. It ends
/// with an error, and is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_can_not_grow_ends_the_service_and_nothing_acknowledged_is_lost() {
    let mut dice = Dice::thrown();
    let (folder, processor) = (Folder::new(), Arc::new(Processor::start()));
    let config = folder.configured(processor.address);
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(number, dice.next())).collect();
    let service = Machinegun::start(&config).await;
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
    for _ in 0..ROUNDS {
        // The signal would end it before it can say anything.
        let service = Machinegun::start_under(&["bash", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""], &config).await;
        let most = journal_length(&folder.store()) + 5_000 + dice.below(40_000);
        limit(service.pid(), Resource::Fsize, most);
        let (working, ended) = ended_under_load(service, clients).await;
        clients = working;
        let open: usize = clients.iter().map(Client::open_steps).sum();
        println!("the journal ended at {most}: {open} without an answer");
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains("File too large"), "{ended:?}");

        processor.forget();
        let service = Machinegun::start(&config).await;
        let peer = Peer::of(service.address);
        join_all(clients.iter_mut().map(|client| client.recover(&peer, &processor))).await;
        service.terminate();
        assert_eq!(service.ended().await.status.code(), Some(0));
    }
}

fn descriptors(pid: Pid) -> Vec<u64> {
    let folder = format!("/proc/{}/fd", pid.as_raw_nonzero());
    let open = std::fs::read_dir(folder).expect("its open files");
    open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

async fn asked(stream: &mut TcpStream) {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
}

async fn answered(stream: &mut TcpStream) {
    let mut answer = [0; 4096];
    let read = soon("an answer", stream.read(&mut answer)).await.expect("an answer");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_connections_wait_and_those_that_are_open_go_on() {
    const FREE: u64 = 6;
    let (folder, processor) = (Folder::new(), Processor::start());
    let service = Machinegun::start(&folder.configured(processor.address)).await;
    let most = descriptors(service.pid()).into_iter().max().expect("open files") + 1 + FREE;
    limit(service.pid(), Resource::Nofile, most);
    let mut streams = Vec::new();
    for _ in 0..most + 4 {
        let mut stream = soon("a connection", TcpStream::connect(service.address)).await.expect("the kernel takes it");
        asked(&mut stream).await;
        streams.push(stream);
    }
    let clock = Clock::system();
    let all_taken = async {
        while descriptors(service.pid()).len() < most as usize {
            clock.sleep_until(clock.now() + 1).await;
        }
    };
    soon("the last descriptor", all_taken).await;
    let mut last = streams.pop().expect("a connection");
    assert_eq!(last.try_read(&mut [0; 1]).expect_err("nobody has taken it").kind(), std::io::ErrorKind::WouldBlock);
    let mut first = streams.remove(0);
    for _ in 0..5 {
        answered(&mut first).await;
        asked(&mut first).await;
    }
    drop(streams);
    answered(&mut last).await;
    answered(&mut first).await;
    // And it can do again what it is for.
    let peer = Peer::of(service.address);
    drop((first, last));
    soon("Start", peer.start("machine", &Order::plain("start"))).await.expect("started");
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
