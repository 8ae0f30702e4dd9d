//! `msgpack.Value`, opaque.

use bytes::Bytes;

use super::codec::{Error, Reader, Type, Wire, Writer};

/// A client's value, as the bytes it came in: one encoded union, from its field's type byte through its stop byte.
///
/// INVARIANT: the bytes were checked (one known variant each, UTF-8 in `str`, finite doubles, bounded depth) or made by
/// one of the constructors here, so any strict reader takes them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Value(Bytes);

// === impl Value ===

impl Value {
    pub fn nil() -> Self {
        Self(Bytes::from_static(&[12, 0, 1, 0, 0]))
    }

    /// The empty `bin`: a machine's aux state before its first step.
    pub fn empty() -> Self {
        Self(Bytes::from_static(&[11, 0, 6, 0, 0, 0, 0, 0]))
    }

    pub fn bool(value: bool) -> Self {
        Self::one(Type::Bool, 2, |writer| writer.u8(u8::from(value)))
    }

    pub fn int(value: i64) -> Self {
        Self::one(Type::I64, 3, |writer| writer.i64(value))
    }

    /// None for NaN and the infinities, which the peers can't hold.
    pub fn double(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::one(Type::Double, 4, |writer| writer.double(value)))
    }

    pub fn str(text: &str) -> Self {
        Self::one(Type::String, 5, |writer| writer.string(text.as_bytes()))
    }

    pub fn bin(bytes: &[u8]) -> Self {
        Self::one(Type::String, 6, |writer| writer.string(bytes))
    }

    pub fn object(pairs: &[(Value, Value)]) -> Self {
        Self::one(Type::Map, 7, |writer| {
            writer.pairs(Type::Struct, Type::Struct, pairs.len());
            for (key, value) in pairs {
                writer.raw(&key.0);
                writer.raw(&value.0);
            }
        })
    }

    pub fn array(elements: &[Value]) -> Self {
        Self::one(Type::List, 8, |writer| {
            writer.elements(Type::Struct, elements.len());
            for element in elements {
                writer.raw(&element.0);
            }
        })
    }

    fn one(kind: Type, id: i16, fill: impl FnOnce(&mut Writer)) -> Self {
        let mut writer = Writer::default();
        writer.field(kind, id);
        fill(&mut writer);
        writer.stop();
        Self(writer.into_bytes())
    }

    /// Bytes that were checked before they were stored.
    pub fn from_stored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same value in memory of its own: what is kept for long must not hold a whole request alive.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Passes over one value and checks it. Iterative: depth costs heap, not stack, and is bounded. A scalar allocates
    /// nothing.
    fn check(reader: &mut Reader) -> Result<(), Error> {
        enum Frame {
            /// In a union; whether its one known field was seen.
            Union(bool),
            /// In an array or object; how many unions are to come.
            Elements(usize),
        }
        let mut stack: Vec<Frame> = Vec::new();
        let mut depth = 1;
        reader.too_deep(depth)?;
        let mut top = Frame::Union(false);
        loop {
            match &mut top {
                Frame::Elements(0) => match stack.pop() {
                    Some(parent) => top = parent,
                    None => return Ok(()),
                },
                Frame::Elements(left) => {
                    *left -= 1;
                    depth += 1;
                    reader.too_deep(depth)?;
                    stack.push(std::mem::replace(&mut top, Frame::Union(false)));
                }
                Frame::Union(seen) => {
                    let Some((kind, id)) = reader.field()? else {
                        if !*seen {
                            return Err(Error::Union { of: "Value", found: "none that is known" });
                        }
                        depth -= 1;
                        match stack.pop() {
                            Some(parent) => top = parent,
                            None => return Ok(()),
                        }
                        continue;
                    };
                    let known = matches!(
                        (id, kind),
                        (1, Type::Struct)
                            | (2, Type::Bool)
                            | (3, Type::I64)
                            | (4, Type::Double)
                            | (5 | 6, Type::String)
                            | (7, Type::Map)
                            | (8, Type::List)
                    );
                    if !known {
                        reader.skip(kind)?;
                        continue;
                    }
                    if std::mem::replace(seen, true) {
                        return Err(Error::Union { of: "Value", found: "several" });
                    }
                    match id {
                        1 => reader.skip_fields()?,
                        5 => reader.skip_utf8()?,
                        7 => {
                            let pairs = reader.pairs(Type::Struct, Type::Struct)?;
                            stack.push(std::mem::replace(&mut top, Frame::Elements(pairs * 2)));
                        }
                        8 => {
                            let elements = reader.elements(Type::Struct)?;
                            stack.push(std::mem::replace(&mut top, Frame::Elements(elements)));
                        }
                        _ => reader.skip(kind)?,
                    }
                }
            }
        }
    }
}

impl Wire for Value {
    const TYPE: Type = Type::Struct;

    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let from = reader.position();
        Self::check(reader)?;
        Ok(Self(reader.since(from)))
    }

    fn write(&self, writer: &mut Writer) {
        writer.raw(&self.0);
    }

    fn size_hint(&self) -> usize {
        self.0.len()
    }

    fn idl() -> String {
        "Value".to_owned()
    }
}

/// Values are clients' data: they are never printed, only measured.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}
