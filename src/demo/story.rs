//! Three payments with three fates. Each step is a call through the port, and then a look at the machine.

use super::caller::{CallError, Caller};
use super::payment::REFUND_ERROR;
use super::print::{Printer, line};
use super::{CAPTURE_AFTER_SECONDS, DemoError};
use crate::clock::Clock;
use crate::wire::{Exception, Machine, MachineStatus};

/// How long the story waits for what must come by itself, in milliseconds.
const PATIENCE_MS: i64 = 20_000;
/// How often it looks meanwhile, in milliseconds.
const LOOK_MS: i64 = 20;
/// So many ids in a row that no machine has: there are no more behind them. A story leaves one such id.
const GAP: u32 = 3;

/// One telling.
struct Story<'a> {
    caller: &'a Caller,
    clock: &'a Clock,
    printer: &'a mut Printer,
}

pub(super) async fn tell(caller: &Caller, clock: &Clock, printer: &mut Printer) -> Result<(), DemoError> {
    let mut story = Story { caller, clock, printer };
    let first = story.recall().await?;
    let [one, two, three] = [0, 1, 2].map(|more| format!("payment-{}", first + more));
    let mut step = 0;
    let mut chapter = |text: String| {
        step += 1;
        line(format_args!("\n{step}. {text}"));
    };

    chapter(format!(
        "Start three payments. The processor authorises each, and asks for a timer {CAPTURE_AFTER_SECONDS} seconds ahead."
    ));
    story.printer.heading();
    for (id, amount) in [(&one, "120.00 EUR"), (&two, "75.50 EUR"), (&three, "9.99 EUR")] {
        expect(&format!("Start {id}"), story.caller.start(id, amount).await)?;
        story.look(id).await?;
    }

    chapter(format!("Notify {two}: the processor hears of it soon, without anyone waiting."));
    expect(&format!("Notify {two}"), story.caller.notify(&two, "the goods are sent").await)?;
    story.wait(&two, "was not notified", |machine| machine.history.len() >= 2).await?;

    chapter(format!("Call {three} with \"close\": closed before its time, and its timer with it."));
    expect(&format!("Call {three}"), story.caller.command(&three, "close").await)?;
    story.look(&three).await?;

    chapter("Nobody calls now. The timers of the other two fire, and the processor captures.".to_owned());
    for id in [&one, &two] {
        story.wait(id, "was not captured by its timer", |machine| machine.timer.is_none()).await?;
    }

    chapter(format!("Call {one} with \"refund\": the processor fails ({REFUND_ERROR}), so the machine stops, failed."));
    match story.caller.command(&one, "refund").await {
        Err(CallError::Thrown(Exception::MachineFailed)) => line("  answer: MachineFailed"),
        Err(error) => return Err(DemoError::Call { what: format!("Call {one}"), error }),
        Ok(answer) => return Err(DemoError::Broken(format!("the refund of {one} should have failed: {answer}"))),
    }
    // Stored before it was answered, so nothing has to be waited for.
    let machine = story.look(&one).await?;
    if !machine.is_some_and(|machine| matches!(machine.status, Some(MachineStatus::Failed(_)))) {
        return Err(DemoError::Broken(format!("{one} was answered as failed, but is not")));
    }

    chapter(format!("Repair {one}: its history is whole, nothing was lost, and it works again."));
    let answer = expect(&format!("Repair {one}"), story.caller.repair(&one, "the bank is back").await)?;
    line(format_args!("  answer: {answer}"));
    story.look(&one).await?;

    chapter(format!("Refund and close {one}."));
    for command in ["refund", "close"] {
        let answer = expect(&format!("Call {one}"), story.caller.command(&one, command).await)?;
        line(format_args!("  answer: {answer}"));
        story.look(&one).await?;
    }

    chapter(format!("Remove {three}: machine and events are gone."));
    expect(&format!("Remove {three}"), story.caller.remove(&three).await)?;
    story.look(&three).await?;

    line("\nThe whole history of each, read again:");
    story.printer.heading();
    for id in [&one, &two, &three] {
        story.printer.forget(id);
        story.look(id).await?;
    }
    Ok(())
}

// === impl Story ===

impl Story<'_> {
    /// Shows what an earlier telling left in the folder, and returns the first number that is free.
    async fn recall(&mut self) -> Result<u32, DemoError> {
        let (mut number, mut last) = (1, 0);
        while number <= last + GAP {
            let id = format!("payment-{number}");
            let machine = expect(&format!("GetMachine {id}"), self.caller.machine(&id, 0).await)?;
            if machine.is_some() {
                if last == 0 {
                    line("\nAn earlier demo left these in the folder:");
                    self.printer.heading();
                }
                last = number;
                self.printer.machine(&id, machine.as_ref());
            }
            number += 1;
        }
        Ok(last + 1)
    }

    async fn look(&mut self, id: &str) -> Result<Option<Machine>, DemoError> {
        let machine = self.caller.machine(id, self.printer.last_event(id)).await;
        let machine = expect(&format!("GetMachine {id}"), machine)?;
        self.printer.machine(id, machine.as_ref());
        Ok(machine)
    }

    /// Looks until the machine is as it should come to be by itself, and shows it then.
    async fn wait(&mut self, id: &str, or: &str, reached: impl Fn(&Machine) -> bool) -> Result<(), DemoError> {
        let until = self.clock.now() + PATIENCE_MS;
        loop {
            let machine = expect(&format!("GetMachine {id}"), self.caller.machine(id, 0).await)?;
            if machine.is_some_and(|machine| reached(&machine)) {
                self.look(id).await?;
                return Ok(());
            }
            if self.clock.now() >= until {
                return Err(DemoError::Broken(format!("{id} {or} within {} s", PATIENCE_MS / 1_000)));
            }
            self.clock.sleep_until(self.clock.now() + LOOK_MS).await;
        }
    }
}

fn expect<T>(what: &str, result: Result<T, CallError>) -> Result<T, DemoError> {
    result.map_err(|error| DemoError::Call { what: what.to_owned(), error })
}
