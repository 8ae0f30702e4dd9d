//! No answer leaves the service before the disk has it: between the journal's write and the answer lies a sync.
//!
//! The system calls of the real binary say so, by strace.

mod process;
#[path = "durability/trace.rs"]
mod trace;

use std::path::Path;

use process::peer::Peer;
use process::processor::{Order, Processor, text};
use process::{Folder, Machinegun, soon};
use rustix::process::{Pid, Signal, kill_process};
use trace::Trace;

const CALLS: usize = 5;
const TRACED: &str = "trace=write,pwrite64,writev,pwritev,pwritev2,fdatasync,fsync,sendto,sendmsg";

/// The service below strace, ended whatever happens: strace's own end would leave it running.
struct Traced(Pid);

// === impl Traced ===

impl Drop for Traced {
    fn drop(&mut self) {
        // It has ended already if all went well.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

fn only_child(of: Pid) -> Pid {
    let of = of.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).expect("strace's children");
    let child = children.trim().parse().unwrap_or_else(|_| panic!("strace runs one process, not {children:?}"));
    Pid::from_raw(child).expect("a process id")
}

async fn traced_calls(folder: &Path, config: &Path) -> u16 {
    let output = folder.join("trace");
    let strace = ["strace", "-f", "-yy", "-s", "65536", "-e", TRACED, "-o", output.to_str().expect("UTF-8"), "--"];
    let service = Machinegun::start_under(&strace, config).await;
    let traced = Traced(only_child(service.pid()));
    let peer = Peer::of(service.address);
    soon("a Start", peer.start("machine", &Order::plain("start"))).await.expect("started");
    for number in 1..=CALLS {
        soon("a Call", peer.call("machine", &Order::plain(format!("call-{number}")))).await.expect("called");
    }
    let port = service.address.port();
    kill_process(traced.0, Signal::TERM).expect("the service takes the signal");
    // strace ends after what it traces, and then its output is whole.
    assert_eq!(service.ended().await.status.code(), Some(0));
    port
}

#[tokio::test]
async fn a_call_is_answered_only_after_the_journal_that_holds_it_is_synced() {
    let version = std::process::Command::new("strace").arg("-V").output();
    assert!(version.is_ok_and(|it| it.status.success()), "this test needs strace: apt-get install strace");
    let folder = Folder::new();
    let processor = Processor::start();
    let config = folder.configured(processor.address);
    let port = traced_calls(folder.path(), &config).await;

    let trace = Trace::read(&std::fs::read_to_string(folder.path().join("trace")).expect("strace's output"));
    let store = folder.store().canonicalize().expect("the store").display().to_string();
    let client = format!("127.0.0.1:{port}->");
    for token in (1..=CALLS).map(|number| format!("call-{number}")) {
        let event = Order::plain(&token).texts().remove(0);
        let journal = trace.first_write(&event, |target| target.starts_with(&store));
        let journal = journal.unwrap_or_else(|| panic!("{token}: its event was never written below {store}"));
        // The response as it stands in the answer: no event of a history looks like it.
        let response = text_on_the_wire(&token);
        let answer = trace.first_write(&response, |target| target.contains(&client));
        let answer = answer.unwrap_or_else(|| panic!("{token}: its answer was never sent from port {port}"));
        let synced =
            trace.syncs(&journal.target).any(|it| it.entered > journal.returned && it.returned < answer.entered);
        assert!(
            synced,
            "{token}: written to {} at line {}, answered at line {}, and no sync of it between",
            journal.target, journal.returned, answer.entered
        );
    }
}

/// A text value's end as strace shows it: the last byte of its length, the text, the union's stop.
fn text_on_the_wire(token: &str) -> String {
    assert_eq!(text(&machinegun::wire::Value::str(token)), token);
    format!("{token}\\0")
}
