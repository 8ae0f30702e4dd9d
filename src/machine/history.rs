//! History ranges.

use crate::wire::{Direction, HistoryRange};

/// Consecutive event ids, both ends included; empty when `first > last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub first: i64,
    pub last: i64,
    /// Newest first.
    pub backward: bool,
}

/// What `range` asks of a history of ids 1 to `last_event`: turn it to the direction, drop all up to and including
/// `after` in that direction, keep the first `limit`.
pub fn slice(range: &HistoryRange, last_event: i64) -> Slice {
    let limit = range.limit.map_or(i64::MAX, |limit| i64::from(limit.max(0)));
    match range.direction {
        Direction::Forward => {
            let first = range.after.map_or(1, |after| after.saturating_add(1).max(1));
            Slice { first, last: last_event.min((first - 1).saturating_add(limit)), backward: false }
        }
        Direction::Backward => {
            let last = range.after.map_or(last_event, |after| after.saturating_sub(1).min(last_event));
            Slice { first: 1.max(last.saturating_sub(limit).saturating_add(1)), last, backward: true }
        }
    }
}

// === impl Slice ===

impl Slice {
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(after: Option<i64>, limit: Option<i32>, direction: Direction, last_event: i64, expected: &[i64]) {
        let slice = slice(&HistoryRange { after, limit, direction }, last_event);
        let mut ids: Vec<i64> = (slice.first..=slice.last).collect();
        if slice.backward {
            ids.reverse();
        }
        assert_eq!(ids, expected, "after {after:?} limit {limit:?} {direction:?} of 1..={last_event}");
    }

    #[test]
    fn ranges_are_cut_as_the_specification_says() {
        use Direction::{Backward, Forward};
        check(None, None, Forward, 3, &[1, 2, 3]);
        check(Some(1), None, Forward, 3, &[2, 3]);
        check(Some(0), None, Forward, 3, &[1, 2, 3]);
        check(Some(-7), Some(2), Forward, 3, &[1, 2]);
        check(Some(3), None, Forward, 3, &[]);
        check(Some(i64::MAX), None, Forward, 3, &[]);
        check(None, Some(2), Forward, 3, &[1, 2]);
        check(None, Some(0), Forward, 3, &[]);
        check(None, Some(i32::MAX), Forward, 3, &[1, 2, 3]);
        check(None, None, Backward, 3, &[3, 2, 1]);
        check(None, Some(2), Backward, 3, &[3, 2]);
        check(Some(5), Some(3), Backward, 100, &[4, 3, 2]);
        check(Some(10), Some(9), Backward, 100, &[9, 8, 7, 6, 5, 4, 3, 2, 1]);
        check(Some(1), None, Backward, 3, &[]);
        check(Some(i64::MIN), None, Backward, 3, &[]);
        check(Some(9), None, Backward, 3, &[3, 2, 1]);
        check(None, Some(0), Backward, 3, &[]);
        check(None, None, Forward, 0, &[]);
        check(None, None, Backward, 0, &[]);
        check(Some(i64::MAX), Some(i32::MAX), Forward, i64::MAX - 1, &[]);
    }
}
