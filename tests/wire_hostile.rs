//! Whatever arrives: well-formed messages survive unchanged, and nothing else crashes, starves or deceives the reader.

#[path = "wire_hostile/sample.rs"]
mod sample;
mod wire_types;

use std::path::Path;

use bytes::Bytes;
use machinegun::wire::{Error, Header, Limits, Reader, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use sample::{Choices, Generator};

fn choices() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..600)
}

fn generator() -> Generator {
    Generator { types: wire_types::types() }
}

fn envelope_length(bytes: &Bytes) -> usize {
    let mut reader = Reader::new(bytes.clone(), Limits::default());
    Header::read(&mut reader).expect("an envelope");
    reader.position()
}

/// All readers, over all the bytes. What one of them takes, it must take again as it wrote it.
fn read_everywhere(bytes: &Bytes) {
    let settled = |again: fn(Bytes) -> Result<Bytes, Error>| {
        if let Ok(written) = again(bytes.clone()) {
            assert_eq!(again(written.clone()), Ok(written));
        }
    };
    wire_types::types().iter().for_each(|declared| settled(declared.again));
    settled(wire_types::again::<Value>);
    for signature in wire_types::signatures() {
        settled(signature.args_again);
        if let Ok(written) = (signature.reply_again)(bytes.clone()) {
            let body = written.slice(envelope_length(&written)..);
            assert_eq!((signature.reply_again)(body), Ok(written));
        }
    }
    let _ = Header::read(&mut Reader::new(bytes.clone(), Limits::default()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_declared_type_is_written_as_it_was_read(choices in choices()) {
        let generator = generator();
        for declared in &generator.types {
            let mut choices = Choices(&choices);
            let sample = generator.sample(declared.file, &declared.schema, &mut choices);
            let plain = Bytes::from(sample.plain);
            prop_assert_eq!((declared.again)(plain.clone()), Ok(plain.clone()), "{}", declared.schema.name);
            prop_assert_eq!((declared.again)(sample.noisy.into()), Ok(plain), "{}, noisy", declared.schema.name);
        }
    }

    #[test]
    fn every_call_and_reply_is_written_as_it_was_read(choices in choices()) {
        let generator = generator();
        for signature in wire_types::signatures() {
            let sample = generator.args(&signature, &mut Choices(&choices));
            let plain = Bytes::from(sample.plain);
            prop_assert_eq!((signature.args_again)(plain.clone()), Ok(plain.clone()), "{}", signature.name);
            prop_assert_eq!((signature.args_again)(sample.noisy.into()), Ok(plain), "{}, noisy", signature.name);

            let sample = generator.reply(&signature, &mut Choices(&choices));
            for bytes in [&sample.plain, &sample.noisy] {
                let written = (signature.reply_again)(bytes.clone().into()).expect("a reply");
                prop_assert_eq!(&written[envelope_length(&written)..], &sample.plain[..], "{}", signature.name);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        read_everywhere(&bytes.into());
    }

    /// Bytes that look like Thrift get further in.
    #[test]
    fn arbitrary_fields_do_no_harm(bytes in vec(prop_oneof![Just(0u8), 0..16u8, any::<u8>()], 0..300)) {
        read_everywhere(&bytes.into());
    }

    #[test]
    fn damaged_messages_do_no_harm(choices in choices(), damage in vec((any::<usize>(), 0..5u8, any::<u8>()), 1..4)) {
        let generator = generator();
        for signature in wire_types::signatures() {
            for sample in [generator.args(&signature, &mut Choices(&choices)), generator.reply(&signature, &mut Choices(&choices))] {
                let mut bytes = sample.noisy;
                for (at, kind, byte) in &damage {
                    let at = at % bytes.len();
                    match kind {
                        0 => bytes[at] = *byte,
                        1 => bytes[at] ^= 1 << (byte % 8),
                        2 => bytes.insert(at, *byte),
                        3 => bytes.extend_from_within(at..),
                        _ => bytes.truncate(at + 1),
                    }
                }
                let bytes = Bytes::from(bytes);
                for again in [signature.args_again, signature.reply_again] {
                    let _ = again(bytes.clone());
                }
            }
        }
    }
}

/// The bodies of all golden messages: who declares it, whether it is a call, bytes.
fn golden() -> Vec<(wire_types::Signature, bool, Bytes)> {
    let mut bodies = Vec::new();
    for file in ["wire.jsonl", "wire2021.jsonl", "damsel.jsonl"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        for line in std::fs::read_to_string(path).expect("the golden file is there").lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a row is JSON");
            let hex = row["hex"].as_str().expect("hex");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let message = Bytes::from((0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>());
            let body = message.slice(envelope_length(&message)..);
            let declares = |it: &wire_types::Signature| row["service"] == it.service && row["method"] == it.name;
            let signature = wire_types::signatures().into_iter().find(declares).expect("declared");
            bodies.push((signature, row["kind"] == "call", body));
        }
    }
    assert_eq!(bodies.len(), 82 + 25 + 23);
    bodies
}

#[test]
fn a_golden_message_is_refused_when_cut_or_followed_by_anything() {
    for (signature, is_call, body) in golden() {
        let again = if is_call { signature.args_again } else { signature.reply_again };
        assert!(again(body.clone()).is_ok());
        for end in 0..body.len() {
            assert!(again(body.slice(..end)).is_err(), "{} cut at {end}", signature.name);
        }
        let longer = Bytes::from([&body[..], b"abc"].concat());
        assert_eq!(again(longer), Err(Error::Trailing(3)), "{}", signature.name);
    }
}

#[test]
fn a_golden_message_with_any_one_byte_changed_does_no_harm() {
    for (signature, is_call, body) in golden() {
        let again = if is_call { signature.args_again } else { signature.reply_again };
        for at in 0..body.len() {
            for byte in [0, 1, 0x0b, 0x0c, 0x0d, 0x0f, 0x7f, 0x80, 0xff, body[at] ^ 1] {
                let mut changed = body.to_vec();
                changed[at] = byte;
                let _ = again(changed.into());
            }
        }
    }
}
