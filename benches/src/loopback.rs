//! What one round trip over loopback costs: a Call takes two of them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use hdrhistogram::Histogram;
use machinegun::clock::Stopwatch;
use serde::Serialize;

use crate::Failure;

const ROUNDS: usize = 5_000;
/// About a Call's request.
const MESSAGE: usize = 512;

#[derive(Debug, Serialize)]
pub struct Loopback {
    pub p50_us: u64,
    pub p99_us: u64,
}

/// Sends a message to and fro between two threads.
pub fn measure() -> Result<Loopback, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || {
        let mut message = [0; MESSAGE];
        // Ends with the other side's hang-up.
        while far.read_exact(&mut message).and_then(|()| far.write_all(&message)).is_ok() {}
    });
    let mut trips = Histogram::<u64>::new(3)?;
    let mut message = [0; MESSAGE];
    for _ in 0..ROUNDS {
        let one = Stopwatch::start();
        near.write_all(&message)?;
        near.read_exact(&mut message)?;
        trips.record(u64::try_from(one.elapsed().as_micros())?)?;
    }
    drop(near);
    echo.join().map_err(|_| "the loopback's echo panicked")?;
    Ok(Loopback { p50_us: trips.value_at_quantile(0.5), p99_us: trips.value_at_quantile(0.99) })
}
