//! Where the original misbehaves and we do better on purpose: what we answer instead of what was recorded.
//!
//! Nothing else may differ. Each row names the row of the decisions that it stands on.

use crate::recording::{Answer, Headers, Response};

/// One inbound exchange that is answered better than it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    pub recording: &'static str,
    pub seq: u64,
    /// The status and class that we answer, with an empty body and any reason.
    pub status: u16,
    pub class: &'static str,
    /// Why the original's answer is not the right one.
    pub because: &'static str,
    /// The row of the decisions: the original's behaviour in its words.
    pub decision: &'static str,
}

pub const ROWS: &[Ours] = &[Ours {
    recording: "mg2021",
    seq: 106,
    status: 400,
    class: "Result Unexpected",
    because: "GetHistory with limit -1 crashes the original's handler; the fault is the request's",
    decision: "A negative limit fails the machine or gives 500",
}];

/// What we answer to an exchange instead of what was recorded, or none.
pub fn ours(recording: &str, seq: u64) -> Option<Answer> {
    ROWS.iter().find(|row| row.recording == recording && row.seq == seq).map(|row| {
        let headers = [("woody.error-class", row.class), ("woody.error-reason", row.because)];
        Answer::Reply(Response {
            status: row.status,
            headers: Headers::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            body: Default::default(),
        })
    })
}
