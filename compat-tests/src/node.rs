//! Thrift messages as trees of field numbers, without any declaration.
//!
//! A reader of its own, on purpose: a field that the service's codec would skip, or write wrongly, shows here.

use std::collections::BTreeMap;
use std::fmt;

/// A decoded value. Two are equal if they mean the same: order of fields, of a set and of a map's pairs means nothing.
#[derive(Clone, Debug)]
pub enum Node {
    Bool(bool),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    /// The bits, so that every double compares.
    Double(u64),
    Bytes(Vec<u8>),
    Struct(BTreeMap<i16, Node>),
    Map {
        types: (u8, u8),
        pairs: Vec<(Node, Node)>,
    },
    List {
        element: u8,
        items: Vec<Node>,
    },
    Set {
        element: u8,
        items: Vec<Node>,
    },
}

/// A whole message.
#[derive(Clone, Debug)]
pub struct Message {
    /// 1 call, 2 reply, 3 exception, 4 oneway.
    pub kind: u8,
    pub name: String,
    pub seqid: i32,
    /// The args or result struct.
    pub body: Node,
}

/// Nobody nests deeper in a recording.
const DEEPEST: usize = 256;

/// How much of a text a difference shows.
const LONGEST_SHOWN: usize = 120;

struct Input<'a> {
    bytes: &'a [u8],
}

// === impl Message ===

impl Message {
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut input = Input { bytes };
        let word = input.i32()? as u32;
        if word & 0xffff_0000 != 0x8001_0000 {
            return Err(format!("not a strict Thrift message: it begins with {word:08x}"));
        }
        let name = String::from_utf8_lossy(input.string()?).into_owned();
        let seqid = input.i32()?;
        let body = input.node(12, 0)?;
        match input.bytes.len() {
            0 => Ok(Self { kind: word as u8, name, seqid, body }),
            left => Err(format!("{left} bytes after the end of the message")),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = (0x8001_0000_u32 | u32::from(self.kind)).to_be_bytes().to_vec();
        write_string(self.name.as_bytes(), &mut bytes);
        bytes.extend(self.seqid.to_be_bytes());
        self.body.encode(&mut bytes);
        bytes
    }
}

// === impl Node ===

impl Node {
    /// What stands at a path of field numbers.
    pub fn at(&self, path: &[i16]) -> Option<&Self> {
        path.iter().try_fold(self, |node, id| match node {
            Self::Struct(fields) => fields.get(id),
            _ => None,
        })
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The wire type's number.
    pub fn wire_type(&self) -> u8 {
        match self {
            Self::Bool(_) => 2,
            Self::I8(_) => 3,
            Self::Double(_) => 4,
            Self::I16(_) => 6,
            Self::I32(_) => 8,
            Self::I64(_) => 10,
            Self::Bytes(_) => 11,
            Self::Struct(_) => 12,
            Self::Map { .. } => 13,
            Self::Set { .. } => 14,
            Self::List { .. } => 15,
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => bytes.push(u8::from(*value)),
            Self::I8(value) => bytes.extend(value.to_be_bytes()),
            Self::I16(value) => bytes.extend(value.to_be_bytes()),
            Self::I32(value) => bytes.extend(value.to_be_bytes()),
            Self::I64(value) => bytes.extend(value.to_be_bytes()),
            Self::Double(bits) => bytes.extend(bits.to_be_bytes()),
            Self::Bytes(value) => write_string(value, bytes),
            Self::Struct(fields) => {
                for (id, node) in fields {
                    bytes.push(node.wire_type());
                    bytes.extend(id.to_be_bytes());
                    node.encode(bytes);
                }
                bytes.push(0);
            }
            Self::Map { types, pairs } => {
                bytes.extend([types.0, types.1]);
                write_size(pairs.len(), bytes);
                for (key, value) in pairs {
                    key.encode(bytes);
                    value.encode(bytes);
                }
            }
            Self::List { element, items } | Self::Set { element, items } => {
                bytes.push(*element);
                write_size(items.len(), bytes);
                for item in items {
                    item.encode(bytes);
                }
            }
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::I8(one), Self::I8(other)) => one == other,
            (Self::I16(one), Self::I16(other)) => one == other,
            (Self::I32(one), Self::I32(other)) => one == other,
            (Self::I64(one), Self::I64(other)) => one == other,
            (Self::Double(one), Self::Double(other)) => one == other,
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::Struct(one), Self::Struct(other)) => one == other,
            (Self::List { items: one, .. }, Self::List { items: other, .. }) => one == other,
            (Self::Set { items: one, .. }, Self::Set { items: other, .. }) => same_members(one, other),
            (Self::Map { pairs: one, .. }, Self::Map { pairs: other, .. }) => same_members(one, other),
            _ => false,
        }
    }
}

/// Short enough to read, whatever its size.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        show(self, &mut text);
        match text.char_indices().nth(LONGEST_SHOWN) {
            Some((end, _)) => write!(f, "{}... ({} bytes)", &text[..end], text.len()),
            None => f.write_str(&text),
        }
    }
}

fn same_members<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    let mut left: Vec<&T> = other.iter().collect();
    one.len() == other.len()
        && one.iter().all(|member| match left.iter().position(|candidate| *candidate == member) {
            Some(at) => {
                left.swap_remove(at);
                true
            }
            None => false,
        })
}

fn show(node: &Node, text: &mut String) {
    // Enough is enough: what follows is cut off anyway.
    if text.len() > 8 * LONGEST_SHOWN {
        return;
    }
    let list = |items: &[Node], text: &mut String| {
        text.push('[');
        for (at, item) in items.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { ", " });
            show(item, text);
        }
        text.push(']');
    };
    match node {
        Node::Bool(value) => text.push_str(&value.to_string()),
        Node::I8(value) => text.push_str(&value.to_string()),
        Node::I16(value) => text.push_str(&value.to_string()),
        Node::I32(value) => text.push_str(&value.to_string()),
        Node::I64(value) => text.push_str(&value.to_string()),
        Node::Double(bits) => text.push_str(&f64::from_bits(*bits).to_string()),
        Node::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(utf8) => text.push_str(&format!("{utf8:?}")),
            Err(_) => text.push_str(&format!("{bytes:02x?}")),
        },
        Node::Struct(fields) => {
            text.push('{');
            for (at, (id, field)) in fields.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                text.push_str(&format!("{id}: "));
                show(field, text);
            }
            text.push('}');
        }
        Node::Map { pairs, .. } => {
            let flat: Vec<Node> = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect();
            text.push_str("map");
            list(&flat, text);
        }
        Node::List { items, .. } => list(items, text),
        Node::Set { items, .. } => {
            text.push_str("set");
            list(items, text);
        }
    }
}

fn write_string(value: &[u8], bytes: &mut Vec<u8>) {
    write_size(value.len(), bytes);
    bytes.extend(value);
}

fn write_size(size: usize, bytes: &mut Vec<u8>) {
    bytes.extend(i32::try_from(size).unwrap_or(i32::MAX).to_be_bytes());
}

// === impl Input ===

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.bytes.split_at_checked(count).ok_or_else(|| format!("cut off: {count} more bytes wanted"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn i32(&mut self) -> Result<i32, String> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, String> {
        let size = self.i32()?;
        usize::try_from(size).map_err(|_| format!("negative size {size}"))
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let size = self.size()?;
        self.take(size)
    }

    fn items(&mut self, depth: usize) -> Result<(u8, Vec<Node>), String> {
        let element = self.byte()?;
        let size = self.size()?;
        let mut items = Vec::new();
        for _ in 0..size {
            items.push(self.node(element, depth + 1)?);
        }
        Ok((element, items))
    }

    fn node(&mut self, wire_type: u8, depth: usize) -> Result<Node, String> {
        if depth > DEEPEST {
            return Err(format!("nested deeper than {DEEPEST} levels"));
        }
        Ok(match wire_type {
            2 => Node::Bool(self.byte()? != 0),
            3 => Node::I8(i8::from_be_bytes(self.array()?)),
            4 => Node::Double(u64::from_be_bytes(self.array()?)),
            6 => Node::I16(i16::from_be_bytes(self.array()?)),
            8 => Node::I32(self.i32()?),
            10 => Node::I64(i64::from_be_bytes(self.array()?)),
            11 => Node::Bytes(self.string()?.to_vec()),
            12 => {
                let mut fields = BTreeMap::new();
                loop {
                    let field_type = self.byte()?;
                    if field_type == 0 {
                        break;
                    }
                    let id = i16::from_be_bytes(self.array()?);
                    let field = self.node(field_type, depth + 1)?;
                    if fields.insert(id, field).is_some() {
                        return Err(format!("field {id} stands twice in a struct"));
                    }
                }
                Node::Struct(fields)
            }
            13 => {
                let types = (self.byte()?, self.byte()?);
                let size = self.size()?;
                let mut pairs = Vec::new();
                for _ in 0..size {
                    pairs.push((self.node(types.0, depth + 1)?, self.node(types.1, depth + 1)?));
                }
                Node::Map { types, pairs }
            }
            14 => {
                let (element, items) = self.items(depth)?;
                Node::Set { element, items }
            }
            15 => {
                let (element, items) = self.items(depth)?;
                Node::List { element, items }
            }
            other => return Err(format!("unknown wire type {other}")),
        })
    }
}
