//! A metric's name, type, labels and help text are written once, where it is made; `docs/metrics.md` is made of them.

use std::cell::RefCell;
use std::fmt::Write;

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Durations in seconds, as the original's dashboards expect.
pub(super) const DURATIONS: Buckets =
    Buckets { letter: "D", bounds: &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0] };

/// How long scans wait, in seconds.
pub(super) const SCANS: Buckets =
    Buckets { letter: "S", bounds: &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0] };

/// How far away timers are, in seconds: up to five years.
pub(super) const OFFSETS: Buckets = Buckets {
    letter: "O",
    bounds: &[0.0, 1.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0, 604_800.0, 2_592_000.0, 31_536_000.0, 157_680_000.0],
};

/// Lengths of queues.
pub(super) const QUEUES: Buckets =
    Buckets { letter: "Q", bounds: &[1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0] };

/// Shares of a bound.
pub(super) const FRACTIONS: Buckets =
    Buckets { letter: "F", bounds: &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0] };

/// Times of disks, in seconds.
pub(super) const SYNCS: Buckets =
    Buckets { letter: "Y", bounds: &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0] };

const ALL_BUCKETS: [Buckets; 6] = [DURATIONS, SCANS, OFFSETS, QUEUES, FRACTIONS, SYNCS];

#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets {
    /// What the document calls them.
    letter: &'static str,
    pub(super) bounds: &'static [f64],
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram(Buckets),
}

/// Where metrics are made.
///
/// A name or label that prometheus refuses, or one used twice, is a mistake in the code alone: the first test that makes
/// metrics finds it.
#[derive(Default)]
pub(super) struct Register {
    registry: Registry,
    definitions: RefCell<Vec<Definition>>,
}

// === impl Register ===

impl Register {
    pub(super) fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> IntCounterVec {
        let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid counter");
        self.add(Definition { name, help, labels, kind: Kind::Counter }, counter)
    }

    pub(super) fn gauge(&self, name: &'static str, help: &'static str, labels: &'static [&'static str]) -> IntGaugeVec {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid gauge");
        self.add(Definition { name, help, labels, kind: Kind::Gauge }, gauge)
    }

    pub(super) fn fraction(&self, name: &'static str, help: &'static str, labels: &'static [&'static str]) -> GaugeVec {
        let gauge = GaugeVec::new(Opts::new(name, help), labels).expect("a valid gauge");
        self.add(Definition { name, help, labels, kind: Kind::Gauge }, gauge)
    }

    pub(super) fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        buckets: Buckets,
    ) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.bounds.to_vec());
        let histogram = HistogramVec::new(opts, labels).expect("a valid histogram");
        self.add(Definition { name, help, labels, kind: Kind::Histogram(buckets) }, histogram)
    }

    fn add<C: Collector + Clone + 'static>(&self, definition: Definition, collector: C) -> C {
        self.registry.register(Box::new(collector.clone())).expect("a metric of its own");
        self.definitions.borrow_mut().push(definition);
        collector
    }

    pub(super) fn finish(self) -> (Registry, Vec<Definition>) {
        (self.registry, self.definitions.into_inner())
    }
}

// === the document ===

const HEAD: &str = "\
# Metrics

What `GET /metrics` answers, in the text format of Prometheus. This page is made of the definitions in the code; a test
compares the two, and `WRITE_DOCS=1 cargo test --workspace --lib metrics` writes it anew.

Ids of machines and values are never labels. A metric with a label `name` is about a scheduler (`timers`,
`timers_retries`, `overseer`, `notification`), a kind of stored thing (`machines`, `events`, `notifications`) or a sink, as
its text says. Counters begin at 0 when the service starts.
";

const ORIGINALS: &str = "
## Those of the original

The same names, labels and buckets, so its dashboards go on working. Not here: `mg_riak_*`, and what only hackney and the
Erlang VM have.
";

const OWN: &str = "
## Those of this service
";

/// All of them, as a page.
pub(super) fn document(definitions: &[Definition]) -> String {
    let mut definitions = definitions.to_vec();
    definitions.sort_by_key(|it| it.name);
    let (own, originals): (Vec<_>, Vec<_>) = definitions.into_iter().partition(|it| it.name.starts_with("machinegun_"));
    let mut page = HEAD.to_owned();
    for (head, part) in [(ORIGINALS, originals), (OWN, own)] {
        page.push_str(head);
        page.push_str("\n| name | type | labels | what it says |\n|---|---|---|---|\n");
        for Definition { name, help, labels, kind } in part {
            let kind = match kind {
                Kind::Counter => "counter".to_owned(),
                Kind::Gauge => "gauge".to_owned(),
                Kind::Histogram(buckets) => format!("histogram {}", buckets.letter),
            };
            let written = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
            debug_assert!(written.is_ok(), "writing to a String can't fail");
        }
    }
    page.push_str("\n## Buckets\n\n| | |\n|---|---|\n");
    for Buckets { letter, bounds } in ALL_BUCKETS {
        let bounds: Vec<_> = bounds.iter().map(f64::to_string).collect();
        let written = writeln!(page, "| {letter} | {} |", bounds.join(" "));
        debug_assert!(written.is_ok(), "writing to a String can't fail");
    }
    page
}
