//! The interface that the conformance cases are written in, and a service that does what its arguments say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use machinegun::wire::{self, Header, MessageType, Method, Reader, Type, Void, Wire, Writer};
use machinegun::woody::{Class, Context, Error, MethodKind, Reply, Request, Service, Source};
use machinegun::{thrift_enum, thrift_methods, thrift_struct, thrift_union};
use tokio::sync::{Semaphore, mpsc};

thrift_enum! {
    pub enum Dir { UP Up = 0, DOWN Down = 1, LEFT Left = 5 }
}

thrift_union! {
    pub enum Uni {
        1 => s: S(Bytes),
        2 => i: I(i32),
        3 => l: L(Vec<Uni>),
    }
}

thrift_struct! {
    pub struct Rec {
        1 => name: required Bytes,
        2 => num: optional i32,
        3 => flag: optional bool,
        4 => lst: optional Vec<i64>,
        5 => mp: optional StringMap,
        6 => st: optional IntSet,
        7 => en: optional Dir,
        8 => un: optional Uni,
        9 => db: filled f64 = 1.5,
        10 => dstr: filled Bytes = Bytes::from_static(b"dflt"),
    }
    pub struct Fail {
        1 => reason: optional Bytes,
    }
    pub struct EchoArgs {
        1 => rec: default Rec,
    }
    pub struct StrArgs {
        1 => s: default Bytes,
        2 => n: optional i32,
    }
    pub struct VoidArgs {
        1 => s: default Bytes,
    }
    pub struct NoArgsArgs {}
}

thrift_methods! {
    Echo = "Echo" (EchoArgs) -> Rec;
    Str = "Str" (StrArgs) -> Bytes;
    VoidCall = "Void" (VoidArgs) -> Void;
    NoArgs = "NoArgs" (NoArgsArgs) -> i64;
}

/// The last of two equal keys wins.
#[derive(Clone, Debug, PartialEq)]
pub struct StringMap(pub BTreeMap<Bytes, i32>);

#[derive(Clone, Debug, PartialEq)]
pub struct IntSet(pub BTreeSet<i32>);

/// What the service was asked.
#[derive(Debug)]
pub struct Seen {
    pub name: Bytes,
    pub context: Context,
}

pub struct Svc {
    pub seen: mpsc::Sender<Seen>,
    /// A handler whose text begins with `wait` takes a permit before it answers.
    pub gate: Arc<Semaphore>,
    /// Handlers that came to their end. Not every test listens, here and above.
    pub done: mpsc::Sender<Bytes>,
}

// === impl StringMap ===

impl Wire for StringMap {
    const TYPE: Type = Type::Map;

    fn read(reader: &mut Reader) -> Result<Self, wire::Error> {
        let size = reader.pairs(Type::String, Type::I32)?;
        (0..size).map(|_| Ok((reader.string()?, reader.i32()?))).collect::<Result<_, _>>().map(Self)
    }

    fn write(&self, writer: &mut Writer) {
        writer.pairs(Type::String, Type::I32, self.0.len());
        for (key, value) in &self.0 {
            writer.string(key);
            writer.i32(*value);
        }
    }

    fn idl() -> String {
        "map<string,i32>".to_owned()
    }
}

// === impl IntSet ===

impl Wire for IntSet {
    const TYPE: Type = Type::Set;

    fn read(reader: &mut Reader) -> Result<Self, wire::Error> {
        let size = reader.elements(Type::I32)?;
        (0..size).map(|_| reader.i32()).collect::<Result<_, _>>().map(Self)
    }

    fn write(&self, writer: &mut Writer) {
        writer.elements(Type::I32, self.0.len());
        for element in &self.0 {
            writer.i32(*element);
        }
    }

    fn idl() -> String {
        "set<i32>".to_owned()
    }
}

// === impl Svc ===

fn reply<M: Method>(seqid: i32, success: M::Success) -> Result<Reply, Error> {
    let body = wire::write_reply::<M>(seqid, &Ok(success)).map_err(|error| Error::unexpected(error.to_string()))?;
    Ok(Reply::Result { body, business: None })
}

fn fail(name: &[u8], seqid: i32, reason: Bytes) -> Reply {
    let mut writer = Writer::default();
    Header::write(MessageType::Reply, name, seqid, &mut writer);
    writer.field(Type::Struct, 1);
    Fail { reason: Some(reason) }.write(&mut writer);
    writer.stop();
    Reply::Result { body: writer.into_bytes(), business: Some("Fail") }
}

impl Svc {
    /// `fail <reason>`, `panic`, `error <source> <class> <details>`; anything else is a result.
    async fn act(&self, text: &Bytes, name: &[u8], seqid: i32) -> Result<Option<Reply>, Error> {
        let text = String::from_utf8_lossy(text).into_owned();
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        match words[..] {
            ["fail", reason] => return Ok(Some(fail(name, seqid, reason.to_owned().into()))),
            ["panic", ..] => panic!("the handler panics"),
            ["error", source, class, details] => {
                let source = if source == "internal" { Source::Internal } else { Source::External };
                let class = match class {
                    "unexpected" => Class::ResultUnexpected,
                    "unavailable" => Class::ResourceUnavailable,
                    _ => Class::ResultUnknown,
                };
                return Err(Error { source, class, details: details.to_owned() });
            }
            _ => {}
        }
        if text.starts_with("wait") {
            self.gate.acquire().await.expect("the gate stays").forget();
        }
        Ok(None)
    }
}

#[async_trait]
impl Service for Svc {
    fn method(&self, name: &[u8]) -> Option<MethodKind> {
        match name {
            b"Echo" | b"Str" | b"Void" | b"NoArgs" => Some(MethodKind::Call),
            b"One" => Some(MethodKind::Oneway),
            _ => None,
        }
    }

    async fn handle(&self, request: Request) -> Result<Reply, Error> {
        let Request { context, name, mut args, seqid, .. } = request;
        let seen = async |context: Context| {
            let _ = self.seen.send(Seen { name: name.clone(), context }).await;
        };
        match &name[..] {
            b"Echo" => {
                let EchoArgs { rec } = wire::read_args::<Echo>(&mut args)?;
                seen(context).await;
                reply::<Echo>(seqid, rec)
            }
            b"NoArgs" => {
                wire::read_args::<NoArgs>(&mut args)?;
                seen(context).await;
                reply::<NoArgs>(seqid, 7)
            }
            _ => {
                let StrArgs { s, .. } = wire::read_args::<Str>(&mut args)?;
                seen(context).await;
                let acted = self.act(&s, &name, seqid).await?;
                let _ = self.done.send(s.clone()).await;
                match (acted, &name[..]) {
                    (Some(acted), _) => Ok(acted),
                    (None, b"Void") => reply::<VoidCall>(seqid, Void),
                    (None, _) => reply::<Str>(seqid, s),
                }
            }
        }
    }
}
