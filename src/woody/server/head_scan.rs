//! Requests that say their body's length twice.

/// Counts `content-length` lines, of which hyper drops an equal second one in silence. What follows a request without a
/// pause (pipelining) is not looked at: two equal lengths are no ambiguity there either.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// The first bytes of the line that has not ended yet.
    line: [u8; CONTENT_LENGTH.len()],
    length: usize,
    started: bool,
    ended: bool,
    lengths: u32,
}

const CONTENT_LENGTH: [u8; 15] = *b"content-length:";

// === impl HeadScan ===

impl HeadScan {
    pub(super) fn is_ambiguous(&self) -> bool {
        self.lengths > 1
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.ended {
                return;
            }
            let taken = part.len().min(self.line.len() - self.length);
            self.line[self.length..self.length + taken].copy_from_slice(&part[..taken]);
            self.length += taken;
            if part.ends_with(b"\n") {
                match &self.line[..self.length] {
                    // Empty lines are allowed before the request line, and end the headers behind it.
                    b"\n" | b"\r\n" => self.ended = self.started,
                    line => {
                        self.started = true;
                        self.lengths += u32::from(line.eq_ignore_ascii_case(&CONTENT_LENGTH));
                    }
                }
                self.length = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_lengths_are_counted_however_the_bytes_are_cut() {
        let head =
            b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nx: content-length: 3\r\ncontent-length:3\r\n\r\n\
                     content-length: 1\r\n";
        for cut in 0..head.len() {
            let mut scan = HeadScan::default();
            scan.feed(&head[..cut]);
            scan.feed(&head[cut..]);
            assert_eq!(scan.lengths, 2, "cut at {cut}");
            assert!(scan.ended);
        }
    }
}
