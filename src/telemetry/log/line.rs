//! The form of a line: which fields there are, and how they nest.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::escape::Escaping;
use super::output::Output;
use super::{severity, timestamp};
use crate::clock::Clock;
use crate::config::LogFormatter;
use crate::telemetry::trace;

/// Fields whose names begin so stand together in an object of this name.
const OBJECTS: [&str; 3] = ["error", "rpc.server", "rpc.client"];

/// The end of the names of fields that hold JSON already.
const JSON: &str = ".metadata";

/// Never cut: who looks for one looks for all of it.
const WHOLE: [&str; 5] = ["trace_id", "span_id", "parent_id", "machine_ns", "machine_id"];

/// Fields that are for traces alone.
const OF_TRACES: &str = "otel.";

/// The longest of what is never cut: beyond it nothing is an id.
const LONGEST_ID: usize = 4096;

/// Makes lines of events and the spans around them.
pub(super) struct Lines {
    clock: Clock,
    most_in_message: usize,
    most_in_text: usize,
    level_map: BTreeMap<String, String>,
    output: Arc<Output>,
}

/// Names and JSON values, in the order in which they came: one of them may come again, and the later counts.
#[derive(Default)]
struct Fields {
    /// Where each value ends in `json`.
    ends: Vec<(&'static str, usize)>,
    json: Vec<u8>,
}

struct Visitor<'a> {
    fields: &'a mut Fields,
    lines: &'a Lines,
}

// === impl Lines ===

impl Lines {
    pub(super) fn new(formatter: &LogFormatter, output: Arc<Output>) -> Self {
        Self {
            clock: Clock::system(),
            most_in_message: formatter.max_length,
            most_in_text: formatter.max_printable_string_length,
            level_map: formatter.level_map.clone(),
            output,
        }
    }

    fn head(&self, line: &mut Vec<u8>, micros: i64, severity: &str) {
        line.extend_from_slice(b"{\"@timestamp\":\"");
        line.extend_from_slice(timestamp(micros).as_bytes());
        line.extend_from_slice(b"\",\"@severity\":");
        let severity = self.level_map.get(severity).map_or(severity, String::as_str);
        text(line, usize::MAX, format_args!("{severity}"));
    }

    /// Says that lines are missing before the one that comes next.
    fn missing(&self, micros: i64, lines: u64) {
        let mut line = Vec::with_capacity(128);
        self.head(&mut line, micros, "warning");
        line.extend_from_slice(format!(",\"message\":\"log lines were dropped\",\"dropped\":{lines}}}\n").as_bytes());
        self.output.push(&line);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut Visitor { fields: &mut fields, lines: self });
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(&mut Visitor { fields, lines: self });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let micros = self.clock.now_micros();
        let severity = severity(event.metadata());
        let bounded = matches!(severity, "info" | "debug");
        match self.output.admit(micros.div_euclid(1_000_000), bounded) {
            None => return,
            Some(0) => {}
            Some(dropped) => self.missing(micros, dropped),
        }
        let mut fields = Fields::default();
        event.record(&mut Visitor { fields: &mut fields, lines: self });

        let mut line = Vec::with_capacity(512);
        self.head(&mut line, micros, severity);
        let mut said: Vec<&'static str> = Vec::with_capacity(16);
        fields.write(&mut line, &mut said);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                fields.write(&mut line, &mut said);
            }
        }
        if let Some((trace, span)) = trace::ids() {
            field(&mut line, "otel_trace_id", format!("\"{trace}\"").as_bytes());
            field(&mut line, "otel_span_id", format!("\"{span}\"").as_bytes());
        }
        line.extend_from_slice(b"}\n");
        self.output.push(&line);
    }
}

fn text(out: &mut Vec<u8>, most: usize, text: fmt::Arguments<'_>) {
    let mut escaping = Escaping::new(out, most);
    // A value whose own formatting fails is written as far as it went.
    let _ = escaping.write_fmt(text);
    escaping.finish();
}

// === impl Fields ===

impl Fields {
    fn iter(&self) -> impl DoubleEndedIterator<Item = (&'static str, &[u8])> {
        self.ends.iter().enumerate().map(|(at, (name, end))| {
            let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
            (*name, &self.json[start..*end])
        })
    }

    /// All that nobody further inside has said.
    fn write(&self, line: &mut Vec<u8>, said: &mut Vec<&'static str>) {
        for (name, json) in self.iter().rev() {
            let nested = |object: &str| name.strip_prefix(object).is_some_and(|rest| rest.starts_with('.'));
            if said.contains(&name) || OBJECTS.into_iter().any(nested) {
                continue;
            }
            said.push(name);
            field(line, name, json);
        }
        for object in OBJECTS {
            let mut members =
                self.iter().filter_map(|(name, json)| Some((name.strip_prefix(object)?.strip_prefix('.')?, json)));
            let Some((first, json)) = members.next() else { continue };
            if said.contains(&object) {
                continue;
            }
            said.push(object);
            field(line, object, b"{");
            // Without the comma that a field begins with.
            let start = line.len();
            field(line, first, json);
            line.remove(start);
            members.for_each(|(name, json)| field(line, name, json));
            line.push(b'}');
        }
    }
}

/// Names are written in the code, and need no escaping.
fn field(line: &mut Vec<u8>, name: &str, json: &[u8]) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    line.extend_from_slice(json);
}

// === impl Visitor ===

impl Visitor<'_> {
    fn push(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>, usize)) {
        let name = field.name();
        if name.starts_with(OF_TRACES) {
            return;
        }
        let most = match name {
            "message" => self.lines.most_in_message,
            name if WHOLE.contains(&name) => LONGEST_ID,
            _ => self.lines.most_in_text,
        };
        write(&mut self.fields.json, most);
        self.fields.ends.push((name, self.fields.json.len()));
    }

    fn number(&mut self, field: &Field, number: impl fmt::Display) {
        self.push(field, |json, _| json.extend_from_slice(number.to_string().as_bytes()));
    }
}

impl Visit for Visitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for the rest.
        match value.is_finite() {
            true => self.number(field, value),
            false => self.record_debug(field, &value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, |json, most| text(json, most, format_args!("{value}")));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, |json, most| text(json, most, format_args!("{value}")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name().ends_with(JSON) {
            true => self.push(field, |json, _| json.extend_from_slice(format!("{value:?}").as_bytes())),
            false => self.push(field, |json, most| text(json, most, format_args!("{value:?}"))),
        }
    }
}
