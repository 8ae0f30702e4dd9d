//! What the demo shows: one line per event, and one where a machine changed without an event.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write as _;

use crate::wire::{Event, Machine, MachineStatus, value_text};

/// As wide as `notified` and a short text need.
const EVENT_WIDTH: usize = 62;

/// Writes histories as they grow: each event once.
#[derive(Default)]
pub(super) struct Printer {
    shown: HashMap<String, Shown>,
}

/// What was shown of a machine last.
#[derive(Clone, Default, PartialEq)]
struct Shown {
    last_event: i64,
    status: String,
    timer: String,
}

// === impl Printer ===

impl Printer {
    /// The event behind which a machine's history is new.
    pub(super) fn last_event(&self, id: &str) -> i64 {
        self.shown.get(id).map_or(0, |shown| shown.last_event)
    }

    /// Shows a machine from its first event again the next time.
    pub(super) fn forget(&mut self, id: &str) {
        self.shown.remove(id);
    }

    pub(super) fn heading(&self) {
        line(row("machine", "#", "time (UTC)", "event", "timer", "status"));
    }

    /// Shows what is new of a machine, and returns whether anything was. `None`: there is no such machine.
    pub(super) fn machine(&mut self, id: &str, machine: Option<&Machine>) -> bool {
        let Some(machine) = machine else {
            let known = self.shown.remove(id).is_some();
            line(row(id, "-", "", "(no such machine)", "-", "not found"));
            return known;
        };
        let before = self.shown.get(id).cloned().unwrap_or_default();
        let mut now = Shown {
            last_event: before.last_event,
            status: status(machine),
            timer: machine.timer.as_ref().map_or("-".to_owned(), |timer| time_of_day(&String::from_utf8_lossy(timer))),
        };
        let mut events = machine.history.events().peekable();
        if events.peek().is_none() && now != before {
            line(row(id, "-", "", "(no new event)", &now.timer, &now.status));
        }
        while let Some(event) = events.next() {
            // Status and timer are those of the machine, so they stand at its newest event.
            let (timer, status) = match events.peek() {
                None => (now.timer.as_str(), now.status.as_str()),
                Some(_) => ("", ""),
            };
            match event {
                Ok(event) => {
                    now.last_event = event.id;
                    let created_at = time_of_day(&String::from_utf8_lossy(&event.created_at));
                    line(row(id, &event.id.to_string(), &created_at, &text(&event), timer, status));
                }
                Err(error) => line(row(id, "?", "", &format!("unreadable: {error}"), timer, status)),
            }
        }
        let changed = now != before;
        self.shown.insert(id.to_owned(), now);
        changed
    }
}

/// One line on standard output.
pub(super) fn line(text: impl Display) {
    // Nobody reads it any more: the demo goes on all the same, and ends as it would have.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A text without a line end: what a person is asked.
pub(super) fn prompt(text: &str) {
    let mut out = std::io::stdout();
    // As above.
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

fn row(machine: &str, number: &str, time: &str, event: &str, timer: &str, status: &str) -> String {
    let text = format!("  {machine:<11} {number:>3}  {time:<15}  {event:<EVENT_WIDTH$}  {timer:<8}  {status}");
    text.trim_end().to_owned()
}

fn status(machine: &Machine) -> String {
    match &machine.status {
        Some(MachineStatus::Failed(failed)) => {
            let reason = failed.reason.as_deref().unwrap_or_default();
            let reason: String = String::from_utf8_lossy(reason).chars().filter(|it| !it.is_control()).collect();
            format!("FAILED: {reason}")
        }
        Some(MachineStatus::Working(_)) => "working".to_owned(),
        None => String::new(),
    }
}

fn text(event: &Event) -> String {
    value_text(&event.data).unwrap_or_else(|error| format!("unreadable: {error}"))
}

/// `2026-01-02T03:04:05.678Z` without its date: the demo takes seconds.
fn time_of_day(timestamp: &str) -> String {
    let time = timestamp.split_once('T').map_or(timestamp, |(_, time)| time);
    time.trim_end_matches('Z').to_owned()
}
