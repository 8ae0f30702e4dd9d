//! Time, randomness and snowflake ids: the only place that reads a clock.
//!
//! Times are unix milliseconds (`i64`) unless a name says micros. Tests turn a manual clock by hand and never sleep.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// 2012-01-01T00:00:00Z, where snowflake ids begin.
const SNOWFLAKE_EPOCH_MS: i64 = 1_325_376_000_000;

/// How long a sleep on the system clock trusts the difference of two readings: a clock that was set is noticed by then.
const LONGEST_NAP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(watch::Receiver<i64>),
}

/// Turns a manual clock. When it is dropped, the clock stands still for ever.
#[derive(Debug)]
pub struct ClockHand(watch::Sender<i64>);

/// The time ran out before the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Unique 64-bit ids in the order of their making: 42 bits of milliseconds since 2012, 10 bits of machine id, 12 bits
/// of a counter. Never goes back, whatever the clock does.
#[derive(Debug)]
pub struct Snowflakes {
    machine_id: i64,
    /// Milliseconds and counter of the last id, as one number.
    last: AtomicI64,
    clock: Clock,
}

/// Measures elapsed time; never goes back. For metrics and intervals, not for decisions about machines.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

// === impl Clock ===

impl Clock {
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Whether it is turned by hand.
    pub fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }

    pub fn manual(start_ms: i64) -> (Self, ClockHand) {
        let (sender, receiver) = watch::channel(start_ms * 1_000);
        (Self(Source::Manual(receiver)), ClockHand(sender))
    }

    pub fn now_micros(&self) -> i64 {
        match &self.0 {
            // IMPORTANT: the one reading of the wall clock.
            #[allow(clippy::disallowed_methods)]
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
            Source::Manual(receiver) => *receiver.borrow(),
        }
    }

    pub fn now(&self) -> i64 {
        self.now_micros().div_euclid(1_000)
    }

    /// Milliseconds of a clock that nobody sets and that goes on while the host sleeps. Its zero means nothing. For leases:
    /// differences of two readings in one process.
    pub fn monotonic(&self) -> i64 {
        match &self.0 {
            Source::System => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
            }
            Source::Manual(_) => self.now(),
        }
    }

    /// Returns once the clock shows `until_ms` or later; never earlier.
    pub async fn sleep_until(&self, until_ms: i64) {
        match &self.0 {
            Source::System => loop {
                let left = until_ms.saturating_mul(1_000).saturating_sub(self.now_micros());
                let Ok(left @ 1..) = u64::try_from(left) else { return };
                tokio::time::sleep(Duration::from_micros(left).min(LONGEST_NAP)).await;
            },
            Source::Manual(receiver) => {
                let mut receiver = receiver.clone();
                let until = until_ms.saturating_mul(1_000);
                if receiver.wait_for(|now| *now >= until).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Returns once [`Self::monotonic`] shows `until_ms` or later, however often the time of day is set meanwhile.
    pub async fn sleep_until_monotonic(&self, until_ms: i64) {
        match &self.0 {
            Source::System => loop {
                let Ok(left @ 1..) = u64::try_from(until_ms.saturating_sub(self.monotonic())) else { return };
                // The runtime's own clock stands still while the host sleeps, this one does not.
                tokio::time::sleep(Duration::from_millis(left).min(LONGEST_NAP)).await;
            },
            Source::Manual(_) => self.sleep_until(until_ms).await,
        }
    }

    /// `work`, or [`Elapsed`] once the clock shows `until_ms`. Work that is ready at once wins.
    pub async fn timeout_at<F: Future>(&self, until_ms: i64, work: F) -> Result<F::Output, Elapsed> {
        tokio::select! {
            biased;
            output = work => Ok(output),
            () = self.sleep_until(until_ms) => Err(Elapsed),
        }
    }
}

// === impl ClockHand ===

impl ClockHand {
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.send_modify(|now| *now = now.saturating_add(by));
    }
}

// === impl Stopwatch ===

impl Stopwatch {
    // IMPORTANT: the one reading of the monotonic clock.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

// === impl Snowflakes ===

impl Snowflakes {
    /// `machine_id` is taken modulo 1024.
    pub fn new(machine_id: u16, clock: Clock) -> Arc<Self> {
        Arc::new(Self { machine_id: i64::from(machine_id % 1024), last: AtomicI64::new(0), clock })
    }

    pub fn next(&self) -> i64 {
        let now = (self.clock.now() - SNOWFLAKE_EPOCH_MS).max(0) << 12;
        // Past 4096 ids in a millisecond the counter carries into the next one: ids stay unique and ordered.
        let step = |last: i64| now.max(last + 1);
        let last = match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(step(last))) {
            Ok(last) | Err(last) => last,
        };
        let stamp = step(last);
        ((stamp >> 12) << 22) | (self.machine_id << 12) | (stamp & 0xfff)
    }
}

/// Uniform random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's generator fails only where the kernel has none at all; nothing can run safely then.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A random number in 0..1, for jitter.
pub fn random_unit() -> f64 {
    (u64::from_be_bytes(random_bytes()) >> 11) as f64 / (1_u64 << 53) as f64
}
