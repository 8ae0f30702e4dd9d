//! After the story: one line in, one call out.

use std::io::{BufRead as _, IsTerminal as _};
use std::net::SocketAddr;
use std::path::Path;

use tokio::sync::mpsc;

use super::caller::{CallError, Caller};
use super::print::{Printer, line, prompt};
use crate::clock::Clock;

/// How often machines with a timer are looked at, in milliseconds.
const LOOK_MS: i64 = 200;
/// Lines that wait: a script may be faster than we are.
const LINES: usize = 16;

const COMMANDS: &str = "  start ID AMOUNT   capture ID   refund ID   close ID   repair ID [NOTE]
  notify ID TEXT    show ID      remove ID   help       quit";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Start {
        id: &'a str,
        amount: &'a str,
    },
    /// For the processor: capture, refund, close.
    Call {
        id: &'a str,
        command: &'a str,
    },
    Repair {
        id: &'a str,
        note: &'a str,
    },
    Notify {
        id: &'a str,
        text: &'a str,
    },
    Show {
        id: &'a str,
    },
    Remove {
        id: &'a str,
    },
    Help,
    Quit,
    Nothing,
}

/// Why a line asks for nothing that there is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BadLine<'a> {
    #[error("no command `{0}`: `help` lists them")]
    Unknown(&'a str),
    #[error("write: {0}")]
    Usage(&'static str),
}

/// Says what to try.
pub(super) fn invite(address: SocketAddr, folder: &Path) {
    line(format_args!("\nThe service stays up, its machines are in {}.", folder.display()));
    line("Ask it from another terminal:\n");
    line(format_args!("  curl http://{address}/health"));
    line(format_args!("  curl http://{address}/metrics"));
    line("\nOr write commands here (Ctrl-C or `quit` ends):\n");
    line(COMMANDS);
    line("");
}

/// Works lines off until `quit`. When there are no more lines it goes on watching, for ever.
pub(super) async fn run(caller: &Caller, clock: &Clock, printer: &mut Printer) {
    let terminal = std::io::stdin().is_terminal();
    let mut lines = read_lines();
    let mut watched: Vec<String> = Vec::new();
    let mut ended = false;
    ask(terminal);
    loop {
        let input = tokio::select! {
            input = lines.recv(), if !ended => match input {
                Some(input) => input,
                None => {
                    ended = true;
                    line("No more input: the service stays up until Ctrl-C.");
                    continue;
                }
            },
            () = clock.sleep_until(clock.now() + LOOK_MS), if !watched.is_empty() => {
                let mut grown = false;
                for id in std::mem::take(&mut watched) {
                    match caller.machine(&id, printer.last_event(&id)).await {
                        Ok(Some(machine)) => {
                            let news = !machine.history.is_empty() || machine.timer.is_none();
                            if news && terminal && !grown {
                                line("");
                            }
                            grown |= news && printer.machine(&id, Some(&machine));
                            if machine.timer.is_some() {
                                watched.push(id);
                            }
                        }
                        Ok(None) => {}
                        Err(error) => line(format_args!("  {id}: {error}")),
                    }
                }
                if grown {
                    ask(terminal);
                }
                continue;
            }
            () = std::future::pending(), if ended && watched.is_empty() => continue,
        };
        let command = match parse(&input) {
            Ok(Command::Quit) => return,
            Ok(command) => command,
            Err(error) => {
                line(format_args!("  {error}"));
                ask(terminal);
                continue;
            }
        };
        if let Some(id) = target(&command) {
            let id = id.to_owned();
            match work(caller, printer, command).await {
                Ok(true) if !watched.contains(&id) => watched.push(id),
                Ok(_) => {}
                Err(error) => line(format_args!("  answer: {error}")),
            }
        }
        ask(terminal);
    }
}

/// Does it, shows the machine, and returns whether the machine will do something by itself.
async fn work(caller: &Caller, printer: &mut Printer, command: Command<'_>) -> Result<bool, CallError> {
    let answer = |answer: String| line(format_args!("  answer: {answer}"));
    let Some(id) = target(&command) else { return Ok(false) };
    let mut notified = false;
    match command {
        Command::Start { id, amount } => {
            caller.start(id, amount).await?;
            printer.forget(id);
        }
        Command::Call { id, command } => match caller.command(id, command).await {
            Ok(text) => answer(text),
            // What became of the machine is the more interesting answer.
            Err(error) => answer(error.to_string()),
        },
        Command::Repair { id, note } => answer(caller.repair(id, note).await?),
        Command::Notify { id, text } => {
            answer(format!("accepted as {}", caller.notify(id, text).await?));
            notified = true;
        }
        Command::Show { id } => {
            printer.forget(id);
            printer.heading();
        }
        Command::Remove { id } => caller.remove(id).await?,
        Command::Help | Command::Quit | Command::Nothing => {}
    }
    let machine = caller.machine(id, printer.last_event(id)).await?;
    printer.machine(id, machine.as_ref());
    Ok(notified || machine.is_some_and(|machine| machine.timer.is_some()))
}

fn target<'a>(command: &Command<'a>) -> Option<&'a str> {
    match command {
        Command::Start { id, .. }
        | Command::Call { id, .. }
        | Command::Repair { id, .. }
        | Command::Notify { id, .. }
        | Command::Show { id }
        | Command::Remove { id } => Some(id),
        Command::Help => {
            line(COMMANDS);
            None
        }
        Command::Quit | Command::Nothing => None,
    }
}

fn parse(input: &str) -> Result<Command<'_>, BadLine<'_>> {
    let (verb, rest) = split(input);
    let (id, more) = split(rest);
    let has = |complete: bool, usage| if complete { Ok(()) } else { Err(BadLine::Usage(usage)) };
    let alone = !id.is_empty() && more.is_empty();
    Ok(match verb {
        "" => Command::Nothing,
        "start" => {
            has(!more.is_empty(), "start ID AMOUNT")?;
            Command::Start { id, amount: more }
        }
        "capture" | "refund" | "close" => {
            has(alone, "capture ID, refund ID or close ID")?;
            Command::Call { id, command: verb }
        }
        "repair" => {
            has(!id.is_empty(), "repair ID [NOTE]")?;
            Command::Repair { id, note: more }
        }
        "notify" => {
            has(!more.is_empty(), "notify ID TEXT")?;
            Command::Notify { id, text: more }
        }
        "show" => {
            has(alone, "show ID")?;
            Command::Show { id }
        }
        "remove" => {
            has(alone, "remove ID")?;
            Command::Remove { id }
        }
        "help" | "?" => Command::Help,
        "quit" | "exit" => Command::Quit,
        unknown => return Err(BadLine::Unknown(unknown)),
    })
}

/// The first word, and what stands behind it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn ask(terminal: bool) {
    if terminal {
        prompt("> ");
    }
}

/// Reads standard input on a thread of its own: a read can't be given up, and must not hold up the end.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        for input in std::io::stdin().lock().lines() {
            let Ok(input) = input else { return };
            if sender.blocking_send(input).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_or_says_what_to_write() {
        let table = [
            ("", Ok(Command::Nothing)),
            ("  start  p 12 EUR ", Ok(Command::Start { id: "p", amount: "12 EUR" })),
            ("start p", Err(BadLine::Usage("start ID AMOUNT"))),
            ("refund p", Ok(Command::Call { id: "p", command: "refund" })),
            ("refund p q", Err(BadLine::Usage("capture ID, refund ID or close ID"))),
            ("repair p", Ok(Command::Repair { id: "p", note: "" })),
            ("notify p hello there", Ok(Command::Notify { id: "p", text: "hello there" })),
            ("show", Err(BadLine::Usage("show ID"))),
            ("remove p", Ok(Command::Remove { id: "p" })),
            ("dance p", Err(BadLine::Unknown("dance"))),
            ("quit", Ok(Command::Quit)),
        ];
        for (input, command) in table {
            assert_eq!(parse(input), command, "{input}");
        }
    }
}
