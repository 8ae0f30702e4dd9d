mod errors;
mod generations;
mod originals;
mod reference;

use super::{ConfigErrors, Report, Settings, parse};

/// The least that starts.
const LEAST: &str = "storage: {type: memory}\nnamespaces: {ns: {processor: {url: \"http://p/\"}}}\n";

fn no_env(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> (Settings, Report) {
    parse(text, &no_env).expect("a file without errors")
}

/// `LEAST`, whose namespace says this too.
fn with(more: &str) -> String {
    LEAST.replace("processor:", &format!("{more}, processor:"))
}

fn errors(text: &str) -> ConfigErrors {
    parse(text, &no_env).expect_err("a file with errors")
}

/// The messages of a file's errors, each as a user sees it.
fn messages(text: &str) -> Vec<String> {
    let problems = errors(text).problems;
    problems.iter().map(ToString::to_string).collect()
}

fn notices(report: &Report) -> Vec<String> {
    report.notices.iter().map(ToString::to_string).collect()
}
