//! Methods: whole messages of calls and replies.

use bytes::Bytes;

use super::codec::{Error, Limits, Reader, Type, Wire, Writer};
use super::exception::Exception;
use super::message::{Header, MessageType};

/// More than an envelope and a result's field and stop take.
const ENVELOPE: usize = 32;

/// A method of a service; declared by `thrift_methods!`.
pub trait Method {
    const NAME: &'static str;
    /// The exceptions that it declares: field id in the reply, name.
    const THROWS: &'static [(i16, &'static str)];
    type Args: Wire;
    type Success: Wire;
}

/// The result of a method that returns nothing: no field at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void;

/// The method does not declare this exception, so its reply can't carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{method} does not declare {exception}")]
pub struct Undeclared {
    pub method: &'static str,
    pub exception: &'static str,
}

/// The args struct behind an envelope; nothing may follow it.
pub fn read_args<M: Method>(reader: &mut Reader) -> Result<M::Args, Error> {
    let args = M::Args::read(reader)?;
    reader.finish()?;
    Ok(args)
}

/// A whole call. Sequence number 0, as the original's client sends. The buffer has room for `capacity` bytes at least.
pub fn write_call<M: Method>(args: &M::Args, capacity: usize) -> Bytes {
    let mut writer = Writer::with_capacity(capacity.max(ENVELOPE + args.size_hint()));
    Header::write(MessageType::Call, M::NAME.as_bytes(), 0, &mut writer);
    args.write(&mut writer);
    writer.into_bytes()
}

/// A whole reply.
pub fn write_reply<M: Method>(seqid: i32, result: &Result<M::Success, Exception>) -> Result<Bytes, Undeclared> {
    let mut writer = Writer::with_capacity(ENVELOPE + result.as_ref().map_or(0, Wire::size_hint));
    Header::write(MessageType::Reply, M::NAME.as_bytes(), seqid, &mut writer);
    match result {
        Ok(success) => {
            if M::Success::TYPE != Type::Stop {
                writer.field(M::Success::TYPE, 0);
                success.write(&mut writer);
            }
        }
        Err(exception) => {
            let name = exception.name();
            let undeclared = Undeclared { method: M::NAME, exception: name };
            let (id, _) = M::THROWS.iter().find(|(_, declared)| *declared == name).ok_or(undeclared)?;
            writer.field(Type::Struct, *id);
            exception.write(&mut writer);
        }
    }
    writer.stop();
    Ok(writer.into_bytes())
}

/// The result struct behind a reply's envelope: exactly one of the result and the declared exceptions.
pub fn read_reply<M: Method>(bytes: Bytes, limits: Limits) -> Result<Result<M::Success, Exception>, Error> {
    let mut reader = Reader::new(bytes, limits);
    let mut found: Option<Result<M::Success, Exception>> = None;
    while let Some((kind, id)) = reader.field()? {
        let declared = M::THROWS.iter().find(|(declared, _)| *declared == id);
        let outcome = match declared {
            None if id == 0 && kind == M::Success::TYPE => Ok(M::Success::read(&mut reader)?),
            Some((_, name)) if kind == Type::Struct => Err(Exception::read(name, &mut reader)?),
            _ => {
                reader.skip(kind)?;
                continue;
            }
        };
        if found.replace(outcome).is_some() {
            return Err(Error::Union { of: M::NAME, found: "several results" });
        }
    }
    reader.finish()?;
    match found {
        Some(outcome) => Ok(outcome),
        // A void result is the absence of every field: reading it takes no bytes.
        None if M::Success::TYPE == Type::Stop => Ok(Ok(M::Success::read(&mut reader)?)),
        None => Err(Error::Missing { of: M::NAME, field: "success" }),
    }
}

// === impl Void ===

impl Wire for Void {
    const TYPE: Type = Type::Stop;

    fn read(_: &mut Reader) -> Result<Self, Error> {
        Ok(Self)
    }

    fn write(&self, _: &mut Writer) {}

    fn idl() -> String {
        "void".to_owned()
    }
}
