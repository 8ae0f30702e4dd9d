//! `machinegun demo`, as a newcomer runs it: what its story promises, what its prompt does, how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

struct Demo {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    shown: String,
}

// === impl Demo ===

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_machinegun"))
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, out, shown: String::new() }
    }

    /// Writes lines, without an end of the input.
    fn write(&mut self, lines: &str) {
        self.child.stdin.as_mut().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    }

    fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Reads until a line has this text.
    fn until(&mut self, text: &str) -> &str {
        let from = self.shown.len();
        loop {
            let start = self.shown.len();
            let read = self.out.read_line(&mut self.shown).expect("text");
            assert!(read > 0, "it ended before it said {text:?}:\n{}", self.shown);
            if self.shown[start..].contains(text) {
                return &self.shown[from..];
            }
        }
    }

    /// To the end: what it said from here on, and how it ended.
    fn end(mut self) -> (String, String, Option<i32>) {
        self.close_input();
        let (mut out, mut errors) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("text");
        self.child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
        let status = self.child.wait().expect("it was started");
        (out, errors, status.code())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // After `end` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn demo_once(path: &Path) -> String {
    let path = path.to_str().expect("a plain path");
    let (out, errors, code) = Demo::start(&["--once", "--port", "0", "--path", path]).end();
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{out}");
    out
}

/// Each of `parts` stands in one line, in the order given.
fn assert_story(out: &str, parts: &[&[&str]]) {
    let mut lines = out.lines();
    for part in parts {
        let found = lines.any(|line| part.iter().all(|text| line.contains(text)));
        assert!(found, "no line with {part:?}, or not in its place:\n{out}");
    }
}

#[test]
fn the_story_shows_what_it_promises() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = demo_once(folder.path());
    assert_story(
        &out,
        &[
            &["payment-1 ", " 1 ", "authorised", "120.00 EUR", "working"],
            &["payment-2 ", " 1 ", "authorised"],
            &["payment-3 ", " 1 ", "authorised"],
            &["payment-2 ", "notified", "the goods are sent"],
            &["payment-3 ", "closed"],
            &["payment-1 ", " 2 ", "captured", "the timer"],
            &["answer: MachineFailed"],
            &["payment-1 ", "FAILED", "the bank does not answer"],
            &["payment-1 ", " 3 ", "repaired", "the bank is back", "working"],
            &["payment-1 ", " 4 ", "refunded"],
            &["payment-1 ", " 5 ", "closed"],
            &["payment-3 ", "not found"],
            &["The whole history"],
            &["payment-1 ", " 1 ", "authorised"],
            &["payment-1 ", " 5 ", "closed"],
            &["payment-3 ", "not found"],
            &["Stopped", "kept"],
        ],
    );
    let captured = out.lines().filter(|line| line.contains("payment-2 ") && line.contains("captured")).count();
    assert_eq!(captured, 2, "once as it happened, once in the whole history:\n{out}");

    // The folder is kept, and so is what is in it.
    let again = demo_once(folder.path());
    assert_story(
        &again,
        &[
            &["An earlier demo"],
            &["payment-1 ", " 1 ", "authorised"],
            &["payment-1 ", " 5 ", "closed"],
            &["payment-2 ", "captured"],
            &["1. Start"],
            &["payment-3 ", " 1 ", "authorised"],
            &["payment-5 ", "not found"],
        ],
    );
}

#[test]
fn lines_are_worked_off_until_quit() {
    let mut demo = Demo::start(&["--port", "0"]);
    demo.until("quit");
    demo.write("start shop-1 5 EUR\ncapture shop-1\nrefund shop-1\n");
    assert_story(
        demo.until("FAILED"),
        &[&["shop-1", "authorised", "5 EUR"], &["captured", "a call"], &["MachineFailed"]],
    );
    demo.write("dance shop-1\nnotify shop-1\nrefund nobody\n");
    assert_story(demo.until("MachineNotFound"), &[&["no command `dance`"], &["notify ID TEXT"]]);
    demo.write("repair shop-1 all well\nrefund shop-1\nstart shop-2 1 EUR\n");
    // Nobody asks for what the timer does: it is shown all the same.
    assert_story(demo.until("the timer"), &[&["repaired", "all well"], &["refunded"], &["shop-2", "captured"]]);
    demo.write("remove shop-1\nshow shop-1\nquit\n");
    let (out, errors, code) = demo.end();
    assert_story(&out, &[&["shop-1", "not found"], &["shop-1", "not found"], &["Stopped", "removed"]]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
}

#[test]
fn without_input_it_stays_up_until_it_is_told_to_stop() {
    let mut demo = Demo::start(&["--port", "0"]);
    demo.close_input();
    demo.until("stays up until Ctrl-C");
    let interrupt = format!("kill -INT {}", demo.child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().expect("a shell").success());
    let (out, errors, code) = demo.end();
    assert_story(&out, &[&["Stopped", "removed"]]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
}

#[test]
fn a_port_that_is_taken_is_said_in_one_line() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let (out, errors, code) = Demo::start(&["--once", "--port", &port]).end();
    assert_eq!((out.as_str(), code), ("", Some(1)));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("can't listen on") && errors.contains("--port 0"), "{errors}");
}
