//! What a writer knows of whose events are in the ledger: the newest blocks' runs, within a bound.

use std::collections::{HashMap, VecDeque};

use super::append::{Link, Source};

/// What the ledger has of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last event's id.
    pub last: i64,
    /// The entry before the block that holds it.
    pub before: i64,
}

/// What is known of a source's events that are behind some entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Mark(Mark),
    /// None of them is in the ledger.
    None,
    /// Nothing is known of the blocks up to this entry.
    Behind(i64),
}

/// INVARIANT: the mark of every source that has events in the blocks behind entry `from`, up to the head, is held.
#[derive(Debug)]
pub struct Marks {
    from: i64,
    held: HashMap<Source, Mark>,
    /// The runs of those blocks, oldest first: the block's last entry and the source.
    runs: VecDeque<(i64, Source)>,
    most: usize,
}

// === impl Marks ===

impl Marks {
    /// Of no block up to `from`. Holds the runs that came last, `most` of them.
    pub fn new(from: i64, most: usize) -> Self {
        Self { from, held: HashMap::new(), runs: VecDeque::new(), most }
    }

    /// Takes in the next block.
    pub fn fold(&mut self, link: &Link) {
        for run in &link.runs {
            self.held.insert(run.source, Mark { last: run.last, before: link.first - 1 });
            self.runs.push_back((link.last, run.source));
        }
        while self.runs.len() > self.most
            && let Some((end, source)) = self.runs.pop_front()
        {
            self.from = end;
            // One that has come again since is held for that block's sake.
            if self.held.get(&source).is_some_and(|mark| mark.before < end) {
                self.held.remove(&source);
            }
        }
    }

    /// What is known of a source whose events are all behind entry `behind`, if they are anywhere.
    pub fn known(&self, source: Source, behind: i64) -> Known {
        match self.held.get(&source) {
            Some(mark) => Known::Mark(*mark),
            None if behind >= self.from => Known::None,
            None => Known::Behind(self.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::append::Run;
    use super::super::{Hash, Head};
    use super::*;

    fn link(first: i64, last: i64, runs: &[(u8, i64)]) -> Link {
        let runs = runs.iter().map(|(source, last)| Run { source: Source([*source; 16]), last: *last });
        Link { first, last, hash: Hash([0; 32]), runs: runs.collect() }
    }

    fn source(source: u8) -> Source {
        Source([source; 16])
    }

    #[test]
    fn what_is_held_is_known_and_what_is_not_is_known_behind_the_window_alone() {
        let mut marks = Marks::new(10, 4);
        assert_eq!(marks.known(source(1), 10), Known::None);
        assert_eq!(marks.known(source(1), 9), Known::Behind(10));
        marks.fold(&link(11, 13, &[(1, 2), (2, 7)]));
        marks.fold(&link(14, 14, &[(1, 3)]));
        assert_eq!(marks.known(source(1), 0), Known::Mark(Mark { last: 3, before: 13 }));
        assert_eq!(marks.known(source(2), 0), Known::Mark(Mark { last: 7, before: 10 }));
        assert_eq!(marks.known(source(3), 10), Known::None);
    }

    /// A source that came again stays; one that did not is forgotten, and nobody may take it for new.
    #[test]
    fn the_oldest_runs_go_past_the_bound() {
        let mut marks = Marks::new(Head::EMPTY.last, 3);
        marks.fold(&link(1, 2, &[(1, 1), (2, 1)]));
        marks.fold(&link(3, 4, &[(1, 2), (3, 1)]));
        assert_eq!(marks.known(source(1), 0), Known::Mark(Mark { last: 2, before: 2 }));
        marks.fold(&link(5, 5, &[(4, 1)]));
        assert_eq!(marks.known(source(2), 0), Known::Behind(2));
        assert_eq!(marks.known(source(2), 2), Known::None);
        assert_eq!(marks.known(source(1), 0), Known::Mark(Mark { last: 2, before: 2 }));
        marks.fold(&link(6, 8, &[(5, 1), (6, 1), (7, 1)]));
        assert_eq!(marks.known(source(1), 2), Known::Behind(5));
        assert_eq!((marks.runs.len(), marks.held.len()), (3, 3));
    }

    /// Two runs of one source in one block.
    #[test]
    fn the_last_run_of_a_block_counts() {
        let mut marks = Marks::new(0, 1);
        marks.fold(&link(1, 4, &[(1, 2), (1, 4)]));
        assert_eq!(marks.known(source(1), 4), Known::None);
        let mut marks = Marks::new(0, 2);
        marks.fold(&link(1, 4, &[(1, 2), (1, 4)]));
        assert_eq!(marks.known(source(1), 0), Known::Mark(Mark { last: 4, before: 0 }));
    }
}
