//! Thrift data without its interface, read and written by the `thrift` crate: the peer that we did not make.

use std::io::Cursor;

use thrift::TConfiguration;
use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TFieldIdentifier, TInputProtocol, TListIdentifier, TMapIdentifier,
    TMessageIdentifier, TMessageType, TOutputProtocol, TSetIdentifier, TStructIdentifier, TType,
};

#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Bool(bool),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    Double(f64),
    Bytes(Vec<u8>),
    Struct(Vec<(i16, Tree)>),
    /// A struct that stays as it is under [`Tree::disturbed`].
    Opaque(Vec<(i16, Tree)>),
    List(TType, Vec<Tree>),
    Set(TType, Vec<Tree>),
    Map(TType, TType, Vec<(Tree, Tree)>),
}

impl Tree {
    pub fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }

    fn kind(&self) -> TType {
        match self {
            Self::Bool(_) => TType::Bool,
            Self::I8(_) => TType::I08,
            Self::I16(_) => TType::I16,
            Self::I32(_) => TType::I32,
            Self::I64(_) => TType::I64,
            Self::Double(_) => TType::Double,
            Self::Bytes(_) => TType::String,
            Self::Struct(_) | Self::Opaque(_) => TType::Struct,
            Self::List(..) => TType::List,
            Self::Set(..) => TType::Set,
            Self::Map(..) => TType::Map,
        }
    }

    /// As a reader sees it, who knows of nothing opaque.
    pub fn seen(&self) -> Self {
        let fields = |fields: &[(i16, Self)]| fields.iter().map(|(id, value)| (*id, value.seen())).collect();
        match self {
            Self::Struct(inner) | Self::Opaque(inner) => Self::Struct(fields(inner)),
            Self::List(kind, list) => Self::List(*kind, list.iter().map(Self::seen).collect()),
            Self::Map(key, value, pairs) => {
                Self::Map(*key, *value, pairs.iter().map(|(key, value)| (key.seen(), value.seen())).collect())
            }
            other => other.clone(),
        }
    }

    /// The same message from a peer of another build: fields in reverse order, between fields that nobody knows.
    pub fn disturbed(&self) -> Self {
        match self {
            Self::Struct(fields) => {
                let mut all = vec![(-1, Self::Bool(true)), (100, Self::Struct(vec![(1, Self::text("unknown"))]))];
                all.extend(fields.iter().rev().map(|(id, value)| (*id, value.disturbed())));
                all.extend([
                    (101, Self::I8(1)),
                    (102, Self::I16(2)),
                    (103, Self::I32(3)),
                    (104, Self::I64(4)),
                    (105, Self::Double(5.5)),
                    (106, Self::text("six")),
                    (107, Self::List(TType::Bool, vec![Self::Bool(true), Self::Bool(false)])),
                    (108, Self::Set(TType::I08, vec![Self::I8(1)])),
                    (109, Self::Map(TType::String, TType::I64, vec![(Self::text("key"), Self::I64(1))])),
                    (110, Self::List(TType::Struct, vec![Self::Struct(vec![]), Self::Struct(vec![])])),
                ]);
                Self::Struct(all)
            }
            Self::List(kind, list) => Self::List(*kind, list.iter().map(Self::disturbed).collect()),
            other => other.clone(),
        }
    }

    fn write(&self, output: &mut dyn TOutputProtocol) -> thrift::Result<()> {
        match self {
            Self::Bool(value) => output.write_bool(*value),
            Self::I8(value) => output.write_i8(*value),
            Self::I16(value) => output.write_i16(*value),
            Self::I32(value) => output.write_i32(*value),
            Self::I64(value) => output.write_i64(*value),
            Self::Double(value) => output.write_double(*value),
            Self::Bytes(value) => output.write_bytes(value),
            Self::Struct(fields) | Self::Opaque(fields) => {
                output.write_struct_begin(&TStructIdentifier::new(""))?;
                for (id, value) in fields {
                    output.write_field_begin(&TFieldIdentifier::new("", value.kind(), *id))?;
                    value.write(output)?;
                    output.write_field_end()?;
                }
                output.write_field_stop()?;
                output.write_struct_end()
            }
            Self::List(kind, list) => {
                output.write_list_begin(&TListIdentifier::new(*kind, list.len() as i32))?;
                list.iter().try_for_each(|value| value.write(output))?;
                output.write_list_end()
            }
            Self::Set(kind, set) => {
                output.write_set_begin(&TSetIdentifier::new(*kind, set.len() as i32))?;
                set.iter().try_for_each(|value| value.write(output))?;
                output.write_set_end()
            }
            Self::Map(key, value, pairs) => {
                output.write_map_begin(&TMapIdentifier::new(*key, *value, pairs.len() as i32))?;
                for (key, value) in pairs {
                    key.write(output)?;
                    value.write(output)?;
                }
                output.write_map_end()
            }
        }
    }

    fn read(kind: TType, input: &mut dyn TInputProtocol) -> thrift::Result<Self> {
        Ok(match kind {
            TType::Bool => Self::Bool(input.read_bool()?),
            TType::I08 => Self::I8(input.read_i8()?),
            TType::I16 => Self::I16(input.read_i16()?),
            TType::I32 => Self::I32(input.read_i32()?),
            TType::I64 => Self::I64(input.read_i64()?),
            TType::Double => Self::Double(input.read_double()?),
            TType::String => Self::Bytes(input.read_bytes()?),
            TType::Struct => {
                let mut fields = Vec::new();
                input.read_struct_begin()?;
                loop {
                    let field = input.read_field_begin()?;
                    if field.field_type == TType::Stop {
                        break;
                    }
                    let id = field.id.expect("only the stop has no id");
                    fields.push((id, Self::read(field.field_type, input)?));
                    input.read_field_end()?;
                }
                input.read_struct_end()?;
                Self::Struct(fields)
            }
            TType::List => {
                let begin = input.read_list_begin()?;
                let list = (0..begin.size).map(|_| Self::read(begin.element_type, input)).collect::<Result<_, _>>()?;
                input.read_list_end()?;
                Self::List(begin.element_type, list)
            }
            TType::Map => {
                let begin = input.read_map_begin()?;
                let key = begin.key_type.expect("binary maps name their types");
                let value = begin.value_type.expect("binary maps name their types");
                let pair = |_| Ok((Self::read(key, input)?, Self::read(value, input)?));
                let pairs = (0..begin.size).map(pair).collect::<thrift::Result<_>>()?;
                input.read_map_end()?;
                Self::Map(key, value, pairs)
            }
            other => panic!("the interface has no {other}"),
        })
    }
}

/// A whole message, strict.
pub fn write_message(kind: TMessageType, name: &str, seqid: i32, body: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut output = TBinaryOutputProtocol::with_config(&mut bytes, true, TConfiguration::no_limits());
    let written = output
        .write_message_begin(&TMessageIdentifier::new(name, kind, seqid))
        .and_then(|()| body.write(&mut output))
        .and_then(|()| output.write_message_end())
        .and_then(|()| output.flush());
    written.expect("writing to memory");
    bytes
}

/// A whole message, strict, with nothing behind it.
pub fn read_message(bytes: &[u8]) -> (TMessageIdentifier, Tree) {
    let mut cursor = Cursor::new(bytes);
    let mut input = TBinaryInputProtocol::with_config(&mut cursor, true, TConfiguration::no_limits());
    let begin = input.read_message_begin().expect("an envelope");
    let body = Tree::read(TType::Struct, &mut input).expect("a struct");
    input.read_message_end().expect("an end");
    assert_eq!(cursor.position(), bytes.len() as u64);
    (begin, body)
}
