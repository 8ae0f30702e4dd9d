//! What `check-config` prints.

use std::fmt::Write;

use super::report::Report;
use super::settings::Settings;

/// The settings that are in effect, as a file that would say all of them, and what became of each key. No secrets.
pub fn describe(settings: &Settings, report: &Report) -> String {
    let mut out = String::from("# The settings in effect, defaults included.\n");
    match yaml_serde::to_string(settings) {
        Ok(yaml) => out.push_str(&yaml),
        // Plain structs of texts and numbers always serialize; should that ever end, the rest is still worth printing.
        Err(error) => {
            let _ = writeln!(out, "# can't be shown: {error}");
        }
    }
    // INVARIANT: everything from here on is a comment, so that the whole stays a file. Writing to a String can't fail.
    if !report.notices.is_empty() {
        out.push_str("\n# Notices:\n");
        for notice in &report.notices {
            let _ = writeln!(out, "#   {notice}");
        }
    }
    if !report.keys.is_empty() {
        out.push_str("\n# What became of each key of the file:\n");
        for key in &report.keys {
            let _ = writeln!(out, "#   {}: {}", key.path, key.became);
        }
    }
    out
}
