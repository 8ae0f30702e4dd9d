//! Text inside of JSON, cut to a bound while it is written.

use std::fmt::{self, Write};

/// What stands at the end of a text that was cut.
const CUT: &str = "...";

/// Takes a text in pieces and writes it as a JSON string of at most so many characters.
pub(super) struct Escaping<'a> {
    out: &'a mut Vec<u8>,
    most: usize,
    written: usize,
    /// Where the mark goes if there is too much.
    mark_at: usize,
    cut: bool,
}

// === impl Escaping ===

impl<'a> Escaping<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, most: usize) -> Self {
        out.push(b'"');
        let mark_at = out.len();
        Self { out, most, written: 0, mark_at, cut: false }
    }

    pub(super) fn finish(self) {
        if self.cut {
            self.out.truncate(self.mark_at);
            self.out.extend_from_slice(CUT.as_bytes());
        }
        self.out.push(b'"');
    }

    fn char(&mut self, char: char) {
        let mut utf8 = [0; 4];
        match char {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            control if control < ' ' => {
                let control = format!("\\u{:04x}", control as u32);
                self.out.extend_from_slice(control.as_bytes());
            }
            other => self.out.extend_from_slice(other.encode_utf8(&mut utf8).as_bytes()),
        }
    }
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        // Nearly every text is short and plain.
        if self.written + text.len() + CUT.len() <= self.most && text.bytes().all(plain) {
            self.out.extend_from_slice(text.as_bytes());
            self.written += text.chars().count();
            self.mark_at = self.out.len();
            return Ok(());
        }
        for char in text.chars() {
            if self.written >= self.most {
                self.cut = true;
                return Ok(());
            }
            self.char(char);
            self.written += 1;
            if self.written + CUT.len() <= self.most {
                self.mark_at = self.out.len();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(pieces: &[&str], most: usize) -> String {
        let mut out = Vec::new();
        let mut escaping = Escaping::new(&mut out, most);
        for piece in pieces {
            escaping.write_str(piece).expect("memory takes everything");
        }
        escaping.finish();
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn any_text_is_a_json_string() {
        let text = "a\"b\\c\nd\re\tf\u{1}g\u{7f}д😀";
        let value: String = serde_json::from_str(&escaped(&[text], 100)).expect("JSON");
        assert_eq!(value, text);
    }

    #[test]
    fn a_text_has_at_most_so_many_characters_and_says_that_it_was_cut() {
        assert_eq!(escaped(&["12345678"], 8), "\"12345678\"");
        assert_eq!(escaped(&["123456789"], 8), "\"12345...\"");
        assert_eq!(escaped(&["1234", "56", "789"], 8), "\"12345...\"");
        assert_eq!(escaped(&["дддддд", "\n\n\n"], 8), "\"ддддд...\"");
        assert_eq!(escaped(&["\n\n\n\n\n"], 4), "\"\\n...\"");
    }
}
