//! A real Kafka, started by deploy/test-services.sh.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use machinegun::clock::random_bytes;
use tokio::sync::{Mutex, MutexGuard};

/// A broker of the tests' own. It ends when the pipe to it does: with this process, however that ends.
pub struct Broker {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
    /// `HOST:PORT` without TLS and login.
    pub plain: String,
    /// `HOST:PORT` with TLS and SCRAM-SHA-512.
    pub secure: String,
    /// What the TLS is to be trusted by.
    pub certificate: String,
}

/// The user of the listener with TLS.
pub const USER: (&str, &str) = ("machinegun", "machinegun-secret");

/// The one broker of this test process, for one test at a time: some of them kill it.
pub async fn broker() -> MutexGuard<'static, Broker> {
    static BROKER: OnceLock<Mutex<Broker>> = OnceLock::new();
    let mut broker = BROKER.get_or_init(|| Mutex::new(Broker::start())).lock().await;
    // A test that failed may have left it dead.
    broker.revive();
    broker
}

/// `HOST:PORT` of the broker that `TEST_KAFKA_BOOTSTRAP` names, else of our own.
pub fn bootstrap(own: &Broker) -> String {
    std::env::var("TEST_KAFKA_BOOTSTRAP").unwrap_or_else(|_| own.plain.clone())
}

/// A topic's name that no other test has.
pub fn topic(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("machinegun-test-{:08x}-{number}-{name}", u32::from_be_bytes(random_bytes()))
}

// === impl Broker ===

impl Broker {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/test-services.sh");
        let mut process = Command::new(script)
            .arg("kafka")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("deploy/test-services.sh runs: it needs bash");
        let mut answers = BufReader::new(process.stdout.take().expect("its output is a pipe")).lines();
        let line = answers.next().and_then(Result::ok).unwrap_or_default();
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let [plain, secure, certificate] = <[String; 3]>::try_from(words)
            .unwrap_or_else(|_| panic!("deploy/test-services.sh has not started kafka: it says above why"));
        Self { process, answers, plain, secure, certificate }
    }

    /// SIGKILL: it has no say in the matter.
    pub fn kill(&mut self) {
        assert_eq!(self.say("kill"), "killed");
    }

    /// On the same ports and data.
    pub fn revive(&mut self) {
        assert_eq!(self.say("start"), "started");
    }

    fn say(&mut self, what: &str) -> String {
        writeln!(self.process.stdin.as_mut().expect("a pipe"), "{what}").expect("the script listens");
        self.answers.next().expect("an answer: the script says above why there is none").expect("text")
    }
}
