//! A real Kafka on this host, started by deploy/test-services.sh.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::{Failure, host};

/// As long a life as a broker has: all the compiling that pays, and room.
const JAVA_OPTIONS: &str = "-Xms1g -Xmx1g -XX:+UseSerialGC";

/// It ends when the pipe to it does: with this process, however that ends.
pub struct Broker {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
    /// `HOST:PORT`
    pub address: String,
}

// === impl Broker ===

impl Broker {
    pub fn start() -> Result<Self, Failure> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/test-services.sh");
        let mut process = Command::new(script)
            .arg("kafka")
            .env("TEST_KAFKA_JAVA_OPTIONS", JAVA_OPTIONS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut answers = BufReader::new(process.stdout.take().ok_or("the broker has no stdout")?).lines();
        let line = answers.next().ok_or("deploy/test-services.sh has not started kafka: it says above why")??;
        let address = line.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { process, answers, address })
    }

    /// CPU time that it has had so far.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        // The script that started it only waits.
        host::children(self.process.id())?.into_iter().map(host::cpu).sum()
    }

    pub fn kill(&mut self) -> Result<(), Failure> {
        writeln!(self.process.stdin.as_mut().ok_or("the broker has no stdin")?, "kill")?;
        self.answers.next().ok_or("the broker was not killed")??;
        Ok(())
    }
}
