//! A value as text for people. Only tools look inside values; the service passes them through as bytes.

use std::fmt::Write as _;

use super::codec::{Error, Limits, Reader, Type};
use super::value::Value;

/// Nested deeper than this, a value is shown as `...`: nobody reads further, and the stack stays small.
const DEEPEST: u32 = 32;
/// Of a binary, so many bytes are shown.
const MOST_BYTES: usize = 32;

/// A value much as JSON writes it. Object keys may be any value, binaries are `bin(length: hex)`, and no control
/// character of a client's text reaches the terminal.
pub fn value_text(value: &Value) -> Result<String, Error> {
    // It was checked when it came in: here depth costs nothing but a look.
    let mut reader = Reader::new(value.as_bytes().clone(), Limits { depth: u32::MAX });
    let mut text = String::new();
    union(&mut reader, DEEPEST, &mut text)?;
    reader.finish()?;
    Ok(text)
}

fn union(reader: &mut Reader, deeper: u32, text: &mut String) -> Result<(), Error> {
    if deeper == 0 {
        text.push_str("...");
        return reader.skip(Type::Struct);
    }
    while let Some((kind, id)) = reader.field()? {
        match (id, kind) {
            (1, Type::Struct) => {
                reader.skip(kind)?;
                text.push_str("null");
            }
            (2, Type::Bool) => text.push_str(if reader.u8()? == 0 { "false" } else { "true" }),
            (3, Type::I64) => print(text, format_args!("{}", reader.i64()?)),
            (4, Type::Double) => print(text, format_args!("{:?}", reader.double()?)),
            (5, Type::String) => print(text, format_args!("{:?}", String::from_utf8_lossy(&reader.string()?))),
            (6, Type::String) => binary(&reader.string()?, text),
            (7, Type::Map) => {
                let pairs = reader.pairs(Type::Struct, Type::Struct)?;
                text.push('{');
                for at in 0..pairs {
                    text.push_str(if at == 0 { "" } else { ", " });
                    union(reader, deeper - 1, text)?;
                    text.push_str(": ");
                    union(reader, deeper - 1, text)?;
                }
                text.push('}');
            }
            (8, Type::List) => {
                let elements = reader.elements(Type::Struct)?;
                text.push('[');
                for at in 0..elements {
                    text.push_str(if at == 0 { "" } else { ", " });
                    union(reader, deeper - 1, text)?;
                }
                text.push(']');
            }
            _ => reader.skip(kind)?,
        }
    }
    Ok(())
}

fn binary(bytes: &[u8], text: &mut String) {
    print(text, format_args!("bin({}", bytes.len()));
    for (at, byte) in bytes.iter().take(MOST_BYTES).enumerate() {
        print(text, format_args!("{}{byte:02x}", if at == 0 { ": " } else { "" }));
    }
    text.push_str(if bytes.len() > MOST_BYTES { "...)" } else { ")" });
}

fn print(text: &mut String, what: std::fmt::Arguments<'_>) {
    let written = text.write_fmt(what);
    debug_assert!(written.is_ok(), "writing to a String can't fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value_has_its_text() {
        let double = Value::double(2.0).expect("finite");
        let table = [
            (Value::nil(), "null"),
            (Value::bool(true), "true"),
            (Value::int(-7), "-7"),
            (double, "2.0"),
            (Value::str("a \"b\"\n\u{1b}[0m"), r#""a \"b\"\n\u{1b}[0m""#),
            (Value::empty(), "bin(0)"),
            (Value::bin(&[0, 255]), "bin(2: 00ff)"),
            (
                Value::object(&[(Value::int(1), Value::str("x")), (Value::nil(), Value::nil())]),
                r#"{1: "x", null: null}"#,
            ),
            (Value::array(&[Value::int(1), Value::array(&[])]), "[1, []]"),
        ];
        for (value, text) in table {
            assert_eq!(value_text(&value).as_deref(), Ok(text));
        }
        let long = value_text(&Value::bin(&[0xab; 33])).expect("well formed");
        assert_eq!(long, format!("bin(33: {}...)", "ab".repeat(32)));
    }

    #[test]
    fn the_deepest_value_that_the_service_takes_is_cut_and_not_followed() {
        let mut value = Value::str("bottom");
        for _ in 1..10_000 {
            value = Value::array(&[value]);
        }
        let text = value_text(&value).expect("well formed");
        assert_eq!(text, format!("{}...{}", "[".repeat(32), "]".repeat(32)));
    }

    #[test]
    fn a_damaged_value_is_an_error() {
        for bytes in [&b""[..], b"\x0b\0\x05\0\0\0\x09abc\0", b"\x02\0\x02\x01\0\0"] {
            assert!(value_text(&Value::from_stored(bytes.into())).is_err(), "{bytes:?}");
        }
    }
}
