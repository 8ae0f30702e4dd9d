//! How long to wait before something is tried again, and when to give up.
//!
//! A policy is a plain value: it reads no clock and no randomness. The caller says which retry it is about, and brings
//! a number between 0 and 1 for the jitter.

use std::time::Duration;

/// No delay is longer than this, so that adding one to any real time never overflows.
const CEILING: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// When to try again: a pattern of delays, how many of them, and two things that bend it.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The delays, before jitter.
    pub pattern: Pattern,
    /// How many retries there are. An `Intervals` pattern has its own end and takes no notice of this.
    pub max_retries: MaxRetries,
    /// Each delay is moved by up to this much, both ways. Zero: no jitter.
    pub jitter: Duration,
    /// The time from the first try after which no retry begins. None: no limit.
    pub timecap: Option<Duration>,
}

/// The delays of a policy, before jitter.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// The same delay each time.
    Linear { timeout: Duration },
    /// Each delay is the last one times `factor` (at least 1), up to `max_timeout` (None: unbounded).
    Exponential { factor: f64, timeout: Duration, max_timeout: Option<Duration> },
    /// Exactly these delays, in order.
    Intervals(Vec<Duration>),
}

/// How many retries a policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxRetries {
    /// This many.
    Times(u32),
    /// There is always another.
    Infinity,
    /// As many as have delays that add up to no more than this, jitter not counted.
    TotalTimeout(Duration),
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// The same delay each time.
    pub fn linear(max_retries: MaxRetries, timeout: Duration) -> Self {
        Self::new(Pattern::Linear { timeout }, max_retries)
    }

    /// Delays that grow by `factor` (anything below 1 counts as 1) up to `max_timeout`.
    pub fn exponential(max_retries: MaxRetries, factor: f64, timeout: Duration, max_timeout: Option<Duration>) -> Self {
        Self::new(Pattern::Exponential { factor, timeout, max_timeout }, max_retries)
    }

    /// Exactly these delays, then the end.
    pub fn intervals(delays: Vec<Duration>) -> Self {
        Self::new(Pattern::Intervals(delays), MaxRetries::Infinity)
    }

    fn new(pattern: Pattern, max_retries: MaxRetries) -> Self {
        RetryPolicy { pattern, max_retries, jitter: Duration::ZERO, timecap: None }
    }

    /// With jitter of up to `epsilon`, both ways.
    pub fn with_jitter(mut self, epsilon: Duration) -> Self {
        self.jitter = epsilon;
        self
    }

    /// With a limit on the time from the first try.
    pub fn with_timecap(mut self, timecap: Duration) -> Self {
        self.timecap = Some(timecap);
        self
    }

    /// The delay before retry number `attempt` (0: the first retry). None: there is no such retry.
    ///
    /// `jitter_unit` lies between 0 (earliest) and 1 (latest); 0.5 is the delay as configured. The timecap is measured
    /// against the delays alone; a caller who knows how long the tries themselves took asks [`Self::delay_after`].
    pub fn delay(&self, attempt: u32, jitter_unit: f64) -> Option<Duration> {
        if let Some(cap) = self.timecap
            && f64::from(attempt) >= self.pattern.retries_within(cap)
        {
            return None;
        }
        self.jittered(attempt, jitter_unit)
    }

    /// The delay that goes on for ever once there is no retry number `attempt` any more: the one before, or the first if
    /// there was none.
    pub fn last_delay(&self, attempt: u32, jitter_unit: f64) -> Duration {
        let last = self.pattern.base(attempt.saturating_sub(1)).or_else(|| self.pattern.base(0));
        self.moved(last.unwrap_or(CEILING), jitter_unit)
    }

    /// As [`Self::delay`], with the timecap measured against `elapsed`, the time since the first try began.
    pub fn delay_after(&self, attempt: u32, elapsed: Duration, jitter_unit: f64) -> Option<Duration> {
        let delay = self.jittered(attempt, jitter_unit)?;
        match self.timecap {
            Some(cap) if elapsed.saturating_add(delay) > cap => None,
            _ => Some(delay),
        }
    }

    fn jittered(&self, attempt: u32, unit: f64) -> Option<Duration> {
        let allowed = match self.max_retries {
            _ if matches!(self.pattern, Pattern::Intervals(_)) => true,
            MaxRetries::Infinity => true,
            MaxRetries::Times(times) => attempt < times,
            MaxRetries::TotalTimeout(total) => f64::from(attempt) < self.pattern.retries_within(total),
        };
        if !allowed {
            return None;
        }
        Some(self.moved(self.pattern.base(attempt)?, unit))
    }

    fn moved(&self, base: Duration, unit: f64) -> Duration {
        let unit = if unit.is_finite() { unit.clamp(0.0, 1.0) } else { 0.5 };
        seconds(base.as_secs_f64() + self.jitter.as_secs_f64() * (2.0 * unit - 1.0))
    }
}

impl Default for RetryPolicy {
    /// The policy of a step that has none of its own: for ever, 10 ms doubling up to 60 s.
    fn default() -> Self {
        Self::exponential(MaxRetries::Infinity, 2.0, Duration::from_millis(10), Some(Duration::from_secs(60)))
    }
}

// === impl Pattern ===

impl Pattern {
    fn base(&self, attempt: u32) -> Option<Duration> {
        match self {
            Pattern::Linear { timeout } => Some((*timeout).min(CEILING)),
            Pattern::Exponential { factor, timeout, max_timeout } => {
                let grown = timeout.as_secs_f64() * growth(*factor).powf(f64::from(attempt));
                let max = max_timeout.unwrap_or(CEILING);
                Some(seconds(grown).min(max))
            }
            Pattern::Intervals(delays) => {
                let delay = delays.get(usize::try_from(attempt).ok()?)?;
                Some((*delay).min(CEILING))
            }
        }
    }

    /// The number of first delays that add up to no more than `total`; infinite where a delay is zero.
    fn retries_within(&self, total: Duration) -> f64 {
        match self {
            Pattern::Linear { timeout } => whole(total.as_secs_f64() / timeout.as_secs_f64()),
            Pattern::Exponential { factor, timeout, max_timeout } => {
                let (first, total) = (timeout.as_secs_f64(), total.as_secs_f64());
                let factor = growth(*factor);
                let max = max_timeout.unwrap_or(CEILING).as_secs_f64();
                if factor == 1.0 || max <= first {
                    return whole(total / first.min(max));
                }
                if first == 0.0 {
                    return f64::INFINITY;
                }
                // The delays grow for `growing` retries and stand at the maximum from then on.
                let growing = ((max / first).ln() / factor.ln() - 1e-9).ceil();
                let sum = first * (factor.powf(growing) - 1.0) / (factor - 1.0);
                if sum >= total {
                    whole((total * (factor - 1.0) / first).ln_1p() / factor.ln())
                } else {
                    growing + whole((total - sum) / max)
                }
            }
            Pattern::Intervals(delays) => {
                let mut sum = Duration::ZERO;
                let fits = delays.iter().take_while(|delay| {
                    sum = sum.saturating_add(**delay);
                    sum <= total
                });
                fits.count() as f64
            }
        }
    }
}

/// A factor below 1 would let delays shrink to nothing: a policy that was meant to be gentle would hammer.
fn growth(factor: f64) -> f64 {
    if factor.is_finite() { factor.max(1.0) } else { 1.0 }
}

/// Rounds down, forgiving what floating point lost of an exact quotient. 0/0 is a zero delay in no time: any number.
fn whole(quotient: f64) -> f64 {
    if quotient.is_nan() { f64::INFINITY } else { (quotient + 1e-9).floor() }
}

/// Seconds as a duration in whole microseconds, between zero and the ceiling.
fn seconds(value: f64) -> Duration {
    let bounded = value.clamp(0.0, CEILING.as_secs_f64());
    Duration::from_micros((bounded * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// The delays in ms of the retries named, without jitter.
    fn delays(policy: &RetryPolicy, attempts: &[u32]) -> Vec<Option<u128>> {
        let at = |n: &u32| policy.delay(*n, 0.5).map(|d| d.as_millis());
        attempts.iter().map(at).collect()
    }

    fn retries(policy: &RetryPolicy) -> u32 {
        (0..10_000_000).find(|n| policy.delay(*n, 0.5).is_none()).expect("a policy with an end")
    }

    #[test]
    fn delays_follow_the_pattern_until_it_is_exhausted() {
        let half_an_hour = ms(1_800_000);
        type Row<'a> = (RetryPolicy, &'a [u32], &'a [Option<u128>]);
        let table: &[Row] = &[
            (
                RetryPolicy::linear(MaxRetries::Times(2), ms(100)),
                &[0, 1, 2, u32::MAX],
                &[Some(100), Some(100), None, None],
            ),
            (
                RetryPolicy::exponential(MaxRetries::Times(100), 2.0, ms(1000), Some(half_an_hour)),
                &[0, 1, 2, 10, 11, 99, 100],
                &[Some(1000), Some(2000), Some(4000), Some(1_024_000), Some(1_800_000), Some(1_800_000), None],
            ),
            (
                RetryPolicy::intervals(vec![ms(5), ms(50), ms(500)]),
                &[0, 1, 2, 3],
                &[Some(5), Some(50), Some(500), None],
            ),
            (
                RetryPolicy::exponential(MaxRetries::Times(3), 0.1, ms(10), None),
                &[0, 1, 2],
                &[Some(10), Some(10), Some(10)],
            ),
        ];
        for (policy, attempts, expected) in table {
            assert_eq!(&delays(policy, attempts), expected, "{policy:?}");
        }
    }

    #[test]
    fn an_endless_policy_never_overflows() {
        let table = [
            (RetryPolicy::default(), ms(60_000)),
            (RetryPolicy::exponential(MaxRetries::Infinity, 2.0, ms(10), None), CEILING),
            (RetryPolicy::exponential(MaxRetries::Infinity, f64::MAX, ms(10), None), CEILING),
            (RetryPolicy::linear(MaxRetries::Infinity, Duration::MAX), CEILING),
        ];
        for (policy, expected) in table {
            assert_eq!(policy.delay(u32::MAX, 0.5), Some(expected), "{policy:?}");
        }
    }

    #[test]
    fn a_total_timeout_becomes_the_retries_whose_delays_fit_into_it() {
        let total = |t| MaxRetries::TotalTimeout(ms(t));
        let table = [
            (RetryPolicy::linear(total(1000), ms(100)), 10),
            (RetryPolicy::linear(total(1099), ms(100)), 10),
            (RetryPolicy::linear(total(99), ms(100)), 0),
            // 10 + 20 + 40 = 70, and 80 more are 150.
            (RetryPolicy::exponential(total(70), 2.0, ms(10), None), 3),
            (RetryPolicy::exponential(total(149), 2.0, ms(10), None), 3),
            (RetryPolicy::exponential(total(150), 2.0, ms(10), None), 4),
            // 10 + 20 + 40, then 40 each.
            (RetryPolicy::exponential(total(150), 2.0, ms(10), Some(ms(40))), 5),
            (RetryPolicy::exponential(total(100), 2.0, ms(10), Some(ms(5))), 20),
            (RetryPolicy::exponential(total(100), 1.0, ms(10), Some(ms(50))), 10),
            // The processor's default: 13 growing delays make 81.91 s, then 1438 of a minute.
            (RetryPolicy::exponential(total(86_400_000), 2.0, ms(10), Some(ms(60_000))), 13 + 1438),
        ];
        for (policy, expected) in table {
            assert_eq!(retries(&policy), expected, "{policy:?}");
        }
    }

    #[test]
    fn a_timecap_ends_the_retries_earlier() {
        let policy = RetryPolicy::linear(MaxRetries::Infinity, ms(100)).with_timecap(ms(350));
        assert_eq!(retries(&policy), 3);
        assert_eq!(policy.delay_after(0, ms(250), 0.5), Some(ms(100)));
        assert_eq!(policy.delay_after(0, ms(251), 0.5), None);
        let policy = RetryPolicy::intervals(vec![ms(1), ms(2), ms(3)]).with_timecap(ms(3));
        assert_eq!(retries(&policy), 2);
    }

    #[test]
    fn past_its_end_a_policy_has_its_last_delay() {
        let table = [
            (RetryPolicy::linear(MaxRetries::Times(2), ms(100)), 2, 100),
            (RetryPolicy::exponential(MaxRetries::Times(3), 2.0, ms(10), None), 3, 40),
            (RetryPolicy::exponential(MaxRetries::Infinity, 2.0, ms(10), None).with_timecap(ms(5)), 0, 10),
            (RetryPolicy::intervals(vec![ms(5), ms(50)]), 2, 50),
        ];
        for (policy, ended, expected) in table {
            assert_eq!(policy.delay(ended, 0.5), None, "{policy:?}");
            assert_eq!(policy.last_delay(ended, 0.5), ms(expected), "{policy:?}");
        }
        let wild = RetryPolicy::linear(MaxRetries::Times(1), ms(100)).with_jitter(ms(30));
        assert_eq!((wild.last_delay(1, 0.0), wild.last_delay(1, 1.0)), (ms(70), ms(130)));
    }

    proptest::proptest! {
        #[test]
        fn no_policy_panics_or_passes_its_bounds(
            linear: bool,
            factor: f64,
            (timeout, max, jitter, total) in (0u64.., 0u64.., 0u64.., 0u64..),
            attempt: u32,
            unit: f64,
        ) {
            let total = MaxRetries::TotalTimeout(ms(total));
            let policy = match linear {
                true => RetryPolicy::linear(total, ms(timeout)),
                false => RetryPolicy::exponential(total, factor, ms(timeout), Some(ms(max))),
            };
            let delay = policy.delay(attempt, unit);
            proptest::prop_assert!(delay.is_none_or(|delay| delay <= CEILING));
            if !linear {
                proptest::prop_assert!(delay.is_none_or(|delay| delay <= ms(max)));
            }
            policy.with_jitter(ms(jitter)).delay(attempt, unit);
        }
    }

    #[test]
    fn jitter_moves_a_delay_both_ways_and_never_below_zero() {
        let policy = RetryPolicy::linear(MaxRetries::Infinity, ms(100)).with_jitter(ms(30));
        for (unit, expected) in [(0.0, 70), (0.5, 100), (1.0, 130), (7.0, 130), (-1.0, 70)] {
            assert_eq!(policy.delay(0, unit), Some(ms(expected)), "{unit}");
        }
        assert_eq!(policy.delay(0, f64::NAN), Some(ms(100)));
        let wild = RetryPolicy::linear(MaxRetries::Infinity, ms(10)).with_jitter(ms(30));
        assert_eq!(wild.delay(0, 0.0), Some(Duration::ZERO));
    }
}
