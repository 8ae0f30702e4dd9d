//! Bills, and what is printed and saved of them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::idle::Idle;
use super::today;
use crate::Failure;
use crate::report::{Bar, commit};
use crate::units::Charge;

/// Requests and units, for one of whatever is billed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bill {
    pub write_requests: f64,
    pub read_requests: f64,
    pub write_units: f64,
    pub read_units: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub what: String,
    /// Events of the machine before it.
    pub history: i64,
    pub sinks: String,
    pub bill: Bill,
}

#[derive(Debug, Serialize)]
pub struct Report {
    /// UTC.
    pub date: String,
    /// Of the source; `-dirty` if it was changed since.
    pub commit: String,
    pub rows: Vec<Row>,
    /// A Call with one event, on average over the whole life of the longest history.
    pub growth: Bill,
    /// Of one instance without requests, in an hour, and of each ledger that it has.
    pub idle_hour: Bill,
    pub idle_ledger_hour: Bill,
    pub bars: Vec<Bar>,
}

pub const HOT: &str = "Call with one event";
pub const AT_ONCE: &str = "Call with one event, 64 machines at once";
pub const FIRST: &str = "Call with one event, one of a machine's first four";

const UNIT: f64 = 4_096.0;

/// Dollars for a million units, where the docs do sums.
const WRITES_COST: f64 = 0.625;
const READS_COST: f64 = 0.125;

// === impl Bill ===

impl Bill {
    pub fn of<'a>(charges: impl IntoIterator<Item = &'a Charge>) -> Self {
        charges.into_iter().fold(Self::default(), |sum, charge| {
            let reads = charge.write_units == 0.0;
            sum.plus(&Self {
                write_requests: f64::from(!reads),
                read_requests: f64::from(reads),
                write_units: charge.write_units,
                read_units: charge.read_units,
            })
        })
    }

    pub fn plus(&self, other: &Self) -> Self {
        Self {
            write_requests: self.write_requests + other.write_requests,
            read_requests: self.read_requests + other.read_requests,
            write_units: self.write_units + other.write_units,
            read_units: self.read_units + other.read_units,
        }
    }

    pub fn times(&self, by: f64) -> Self {
        Self {
            write_requests: self.write_requests * by,
            read_requests: self.read_requests * by,
            write_units: self.write_units * by,
            read_units: self.read_units * by,
        }
    }

    fn dollars_for_a_million(&self) -> f64 {
        self.write_units * WRITES_COST + self.read_units * READS_COST
    }
}

// === impl Report ===

impl Report {
    /// `reading`: units and bytes of whole histories.
    pub fn new(rows: Vec<Row>, growth: Bill, reading: &[(f64, usize)], idle: &Idle) -> Self {
        let bars = bars(&rows, &growth, reading);
        let (idle_hour, idle_ledger_hour) = (idle.instance.clone(), idle.ledger.clone());
        Self { date: today(), commit: commit(), rows, growth, idle_hour, idle_ledger_hour, bars }
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            // Writing into a string has no way to fail.
            let _ = writeln!(text, "{line}");
        };
        line("| what | events before | sink | write requests | read requests | write units | read units | $ per million |".to_owned());
        line("|---|---:|---|---:|---:|---:|---:|---:|".to_owned());
        for Row { what, history, sinks, bill } in &self.rows {
            line(format!("| {what} | {history} | {sinks} | {} |", columns(bill)));
        }
        line(format!(
            "| **Call with one event, the whole way from the first** | 0 and up | none | {} |",
            columns(&self.growth)
        ));
        line(format!("| **an idle instance with 256 shards, an hour** | | | {} |", columns(&self.idle_hour)));
        line(format!("| **the same, each ledger more** | | | {} |", columns(&self.idle_ledger_hour)));
        line(String::new());
        for Bar { promise, seen, ok } in &self.bars {
            line(format!("- {}: {promise}: {seen}", if *ok { "held" } else { "MISSED" }));
        }
        text
    }

    /// Into `benches/results/` of the source tree, and the page of docs that shows it.
    pub fn save(&self, name: &str) -> Result<PathBuf, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("results").join(format!("{name}.json"));
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(root.join("../docs/cost.md"), format!("{}{}", include_str!("page.md"), self.table()))?;
        Ok(path)
    }
}

fn columns(bill: &Bill) -> String {
    let Bill { write_requests, read_requests, write_units, read_units } = bill;
    let short = |it: &f64| format!("{it:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    let numbers = [write_requests, read_requests, write_units, read_units].map(short);
    format!("{} | {:.2}", numbers.join(" | "), bill.dollars_for_a_million())
}

fn bars(rows: &[Row], growth: &Bill, reading: &[(f64, usize)]) -> Vec<Bar> {
    let bar = |promise: &str, seen: String, ok: bool| Bar { promise: promise.to_owned(), seen, ok };
    let mut bars = Vec::new();
    if let Some(row) = rows.iter().find(|row| row.what == FIRST && row.sinks == "none") {
        let Bill { write_requests, read_requests, write_units, .. } = &row.bill;
        let seen = format!("{write_requests:.2}, {read_requests:.2}, {write_units:.2}");
        let ok = *write_requests <= 1.0 && *read_requests == 0.0 && *write_units <= 2.0;
        bars.push(bar("a hot Call with one event, of few so far: 1 write request, no reads, 2 write units", seen, ok));
    }
    // The Calls' own: what is read meanwhile is the ledgers' look at their ends, which goes by the clock. That a Call reads
    // nothing is the first bar's.
    let (requests, units) = (growth.write_requests, growth.write_units);
    bars.push(bar(
        "over a growing history, spilling included: 1.35 write requests and 3 write units per Call",
        format!("{requests:.3}, {units:.3}"),
        requests <= 1.35 && units <= 3.0,
    ));
    let at_once = |sinks: &str| {
        let row = rows.iter().find(|row| row.what == AT_ONCE && row.sinks == sinks)?;
        Some(row.bill.write_requests + row.bill.read_requests)
    };
    if let (Some(none), Some(kafka), Some(ledger)) = (at_once("none"), at_once("Kafka"), at_once("ledger")) {
        let (kafka, ledger) = (kafka - none, ledger - none);
        bars.push(bar(
            "one sink, 64 machines at once: 0.1 requests more per Call",
            format!("Kafka {kafka:.3}, ledger {ledger:.3}"),
            kafka <= 0.1 && ledger <= 0.1,
        ));
    }
    let worst = reading.iter().map(|(units, bytes)| units / (*bytes as f64 / UNIT).ceil().max(1.0));
    // One event's history is a read of one item in any case.
    let worst = worst.fold(0.0, f64::max);
    bars.push(bar("reading a whole history: 1.3 times the units of its bytes", format!("{worst:.2}"), worst <= 1.3));
    bars
}
