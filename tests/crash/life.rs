//! What must have become of a machine, from what its only client sent and was told.

use std::collections::HashSet;

use machinegun::wire::{self, Event, MachineStatus};

use crate::process::processor::{Order, note_text, text, timer_text};

#[derive(Clone, Debug)]
pub enum Step {
    Start(Order),
    Call(Order),
    /// A Call that fails the machine.
    Fail(Order),
    Repair(Order),
    SimpleRepair,
    Notify(Order),
    Remove,
}

/// From a Start to the removal.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub failed: bool,
    /// The texts of the steps' events, in order.
    steps: Vec<String>,
    /// Whose timer stands, or has fired.
    timer: Option<String>,
    /// Whose timers had stood before; they may have fired.
    earlier_timers: HashSet<String>,
    /// Acknowledged notifications.
    notes: HashSet<String>,
    /// Sent, and cut off by a kill.
    maybe_notes: HashSet<String>,
    /// The history as it was last read: it may grow, it may never change.
    seen: Vec<Event>,
}

pub struct Machine {
    pub id: String,
    /// None: it does not exist.
    pub life: Option<Life>,
    /// Sent, and not answered yet.
    pub open: Option<Step>,
    /// From each Start to each removal, oldest first.
    past: Vec<Life>,
}

// === impl Life ===

impl Life {
    /// The life after a step that was done.
    fn after(life: Option<&Self>, step: &Step) -> Option<Self> {
        let mut next = life.cloned().unwrap_or_default();
        match step {
            Step::Start(order) => {
                next = Self::default();
                next.obey(order);
            }
            Step::Call(order) => next.obey(order),
            Step::Repair(order) => {
                next.failed = false;
                next.obey(order);
            }
            Step::Fail(_) => next.failed = true,
            Step::SimpleRepair => next.failed = false,
            Step::Notify(order) => {
                next.notes.insert(order.token.clone());
            }
            Step::Remove => return None,
        }
        Some(next)
    }

    fn obey(&mut self, order: &Order) {
        self.steps.extend(order.texts());
        if order.timer.is_some() {
            self.earlier_timers.extend(self.timer.replace(order.token.clone()));
        }
    }

    /// The texts of the events that are still to come by themselves.
    pub fn due(&self) -> Vec<String> {
        let promised = self.notes.iter().map(|it| note_text(it)).chain(self.timer.iter().map(|it| timer_text(it)));
        let came: HashSet<String> = self.seen.iter().map(|event| text(&event.data)).collect();
        promised.filter(|text| !came.contains(text)).collect()
    }

    /// Why `machine` can't be what has become of this life.
    fn contradicts(&self, machine: &wire::Machine) -> Result<(), String> {
        self.contradicts_events(&read(machine))?;
        match (&machine.status, self.failed) {
            (Some(MachineStatus::Failed(_)), true) | (Some(MachineStatus::Working(_)), false) => Ok(()),
            (status, failed) => Err(format!("failed: {failed}, but its status is {status:?}")),
        }
    }

    /// Why these can't be the events of this life.
    pub fn contradicts_events(&self, events: &[Event]) -> Result<(), String> {
        let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
        if !ids.iter().copied().eq(1..=events.len() as i64) {
            return Err(format!("the ids are not contiguous from 1: {ids:?}"));
        }
        if events.len() < self.seen.len() || events[..self.seen.len()] != self.seen[..] {
            return Err(format!("what was read before is not the beginning: {:?}, now {events:?}", self.seen));
        }
        let texts: Vec<String> = events.iter().map(|event| text(&event.data)).collect();
        let steps: Vec<&String> = texts.iter().filter(|text| text.starts_with("step:")).collect();
        if !steps.iter().copied().eq(&self.steps) {
            return Err(format!("the steps' events are {steps:?}, not {:?}", self.steps));
        }
        let mut allowed: HashSet<String> = self.notes.iter().chain(&self.maybe_notes).map(|it| note_text(it)).collect();
        allowed.extend(self.earlier_timers.iter().chain(&self.timer).map(|it| timer_text(it)));
        // Each may take effect once.
        if let Some(strange) =
            texts.iter().filter(|text| !text.starts_with("step:")).find(|text| !allowed.remove(*text))
        {
            return Err(format!("{strange} stands there twice, or was never asked for: {texts:?}"));
        }
        Ok(())
    }
}

// === impl Machine ===

impl Machine {
    pub fn new(id: String) -> Self {
        Self { id, life: None, open: None, past: Vec::new() }
    }

    /// The open step was answered as it should be.
    pub fn acknowledged(&mut self) {
        let step = self.open.take().expect("a step");
        self.becomes(Life::after(self.life.as_ref(), &step));
    }

    fn becomes(&mut self, life: Option<Life>) {
        let before = std::mem::replace(&mut self.life, life);
        if self.life.is_none() {
            self.past.extend(before);
        }
    }

    /// All its lives, oldest first; the last one may be going on.
    pub fn lives(&self) -> impl Iterator<Item = &Life> {
        self.past.iter().chain(&self.life)
    }

    /// What was read is what must have become of the machine.
    #[track_caller]
    pub fn holds(&mut self, found: Option<&wire::Machine>) {
        if let Err(why) = matches(self.life.as_ref(), found) {
            panic!("{}: {why}", self.id);
        }
        self.remember(found);
    }

    /// Whether the open step was done only the machine itself can tell: wholly, or not at all.
    #[track_caller]
    pub fn resolve(&mut self, found: Option<&wire::Machine>) {
        let step = self.open.take();
        if let (Some(Step::Notify(order)), Some(life)) = (&step, &mut self.life) {
            life.maybe_notes.insert(order.token.clone());
            return self.holds(found);
        }
        let before = matches(self.life.as_ref(), found);
        let after = step.as_ref().map(|step| Life::after(self.life.as_ref(), step));
        match (before, after) {
            (Ok(()), _) => {}
            (Err(_), Some(after)) if matches(after.as_ref(), found).is_ok() => self.becomes(after),
            (Err(why), after) => {
                let and = after.map(|after| matches(after.as_ref(), found));
                panic!("{}: {why}; and with {step:?} done: {and:?}", self.id);
            }
        }
        self.remember(found);
    }

    /// All that was due has taken effect.
    #[track_caller]
    pub fn is_settled(&self) {
        let due = self.life.as_ref().map(Life::due).unwrap_or_default();
        assert!(due.is_empty(), "{}: these never took effect: {due:?}", self.id);
    }

    fn remember(&mut self, found: Option<&wire::Machine>) {
        if let (Some(life), Some(found)) = (&mut self.life, found) {
            life.seen = read(found);
        }
    }
}

/// The history, decoded.
pub fn read(machine: &wire::Machine) -> Vec<Event> {
    machine.history.decoded().map(|event| event.expect("a well-formed event")).collect()
}

fn matches(life: Option<&Life>, found: Option<&wire::Machine>) -> Result<(), String> {
    match (life, found) {
        (None, None) => Ok(()),
        (Some(life), Some(found)) => life.contradicts(found),
        (life, found) => Err(format!("exists: {}, but found: {}", life.is_some(), found.is_some())),
    }
}
