//! Reader and writer of strict binary Thrift.

use bytes::Bytes;

/// A wire type's number: the byte before each field, element, key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    Stop = 0,
    Bool = 2,
    I8 = 3,
    Double = 4,
    I16 = 6,
    I32 = 8,
    I64 = 10,
    String = 11,
    Struct = 12,
    Map = 13,
    Set = 14,
    List = 15,
}

/// What a decoder accepts beyond well-formedness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Deepest nesting of a [`super::Value`], and of anything that is skipped. A scalar is depth 1.
    pub depth: u32,
}

/// Why bytes were not what they should be. Always the sender's fault, never retryable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("cut off: {wanted} more bytes wanted at offset {at}, {left} left")]
    Truncated { wanted: usize, at: usize, left: usize },
    #[error("negative length {0}")]
    NegativeLength(i32),
    #[error("{size} elements claimed, {left} bytes left")]
    Oversized { size: i32, left: usize },
    #[error("unknown wire type {0}")]
    UnknownType(u8),
    #[error("elements of wire type {found} where {expected:?} is declared")]
    ElementType { expected: Type, found: u8 },
    #[error("{of}: required field `{field}` is missing")]
    Missing { of: &'static str, field: &'static str },
    #[error("{of}: a union holds exactly one field, this one holds {found}")]
    Union { of: &'static str, found: &'static str },
    #[error("{of}: no symbol has the number {number}")]
    UnknownSymbol { of: &'static str, number: i32 },
    #[error("a str value is not UTF-8")]
    NotUtf8,
    #[error("a double is NaN or infinite")]
    NotFinite,
    #[error("nested deeper than {0} levels")]
    TooDeep(u32),
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

/// Walks over bytes in memory. What it hands out are slices of the same memory.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    at: usize,
    limits: Limits,
}

/// Appends to one buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
}

/// A type that travels. `read` leaves the reader behind the value's last byte.
pub trait Wire: Sized {
    const TYPE: Type;
    fn read(reader: &mut Reader) -> Result<Self, Error>;
    fn write(&self, writer: &mut Writer);
    /// The type as the IDL spells it, typedefs resolved (`string` stands for binary too).
    fn idl() -> String;
}

// === impl Type ===

impl Type {
    /// The types that a strict peer may send. Void, the obsolete numbers and uuid are refused.
    pub fn from_byte(byte: u8) -> Result<Self, Error> {
        Ok(match byte {
            0 => Self::Stop,
            2 => Self::Bool,
            3 => Self::I8,
            4 => Self::Double,
            6 => Self::I16,
            8 => Self::I32,
            10 => Self::I64,
            11 => Self::String,
            12 => Self::Struct,
            13 => Self::Map,
            14 => Self::Set,
            15 => Self::List,
            other => return Err(Error::UnknownType(other)),
        })
    }

    /// The fewest bytes that a value of the type takes: bounds a claimed container size.
    fn least_size(self) -> usize {
        match self {
            Self::Stop | Self::Bool | Self::I8 | Self::Struct => 1,
            Self::I16 => 2,
            Self::I32 | Self::String => 4,
            Self::I64 | Self::Double => 8,
            Self::Set | Self::List => 5,
            Self::Map => 6,
        }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 1_000 }
    }
}

// === impl Reader ===

impl Reader {
    pub fn new(bytes: Bytes, limits: Limits) -> Self {
        Self { bytes, at: 0, limits }
    }

    /// Bytes already read.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes from `from` up to here, shared with the input.
    pub fn since(&self, from: usize) -> Bytes {
        self.bytes.slice(from..self.at)
    }

    /// Nothing may follow a message.
    pub fn finish(&self) -> Result<(), Error> {
        match self.left() {
            0 => Ok(()),
            left => Err(Error::Trailing(left)),
        }
    }

    fn take(&mut self, wanted: usize) -> Result<&[u8], Error> {
        let left = self.left();
        if wanted > left {
            return Err(Error::Truncated { wanted, at: self.at, left });
        }
        let from = self.at;
        self.at += wanted;
        Ok(&self.bytes[from..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub fn i16(&mut self) -> Result<i16, Error> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, Error> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// NaN and infinities can't exist in the peers' language: they are refused wherever they stand.
    pub fn double(&mut self) -> Result<f64, Error> {
        let double = f64::from_be_bytes(self.array()?);
        if double.is_finite() { Ok(double) } else { Err(Error::NotFinite) }
    }

    /// A string or binary, without a look at its contents.
    pub fn string(&mut self) -> Result<Bytes, Error> {
        let length = self.i32()?;
        let length = usize::try_from(length).map_err(|_| Error::NegativeLength(length))?;
        let from = self.at;
        self.take(length)?;
        Ok(self.since(from))
    }

    /// As [`Self::string`], for text that must be UTF-8.
    pub(super) fn skip_utf8(&mut self) -> Result<(), Error> {
        let length = self.i32()?;
        let length = usize::try_from(length).map_err(|_| Error::NegativeLength(length))?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Error::NotUtf8)?;
        Ok(())
    }

    /// The next field's type and id, or none at the struct's end.
    pub fn field(&mut self) -> Result<Option<(Type, i16)>, Error> {
        match Type::from_byte(self.u8()?)? {
            Type::Stop => Ok(None),
            kind => Ok(Some((kind, self.i16()?))),
        }
    }

    /// The size of a list or set of `expected`. An element type that differs is refused even when there are none.
    pub fn elements(&mut self, expected: Type) -> Result<usize, Error> {
        let found = self.u8()?;
        if found != expected as u8 {
            return Err(Error::ElementType { expected, found });
        }
        self.size(expected.least_size())
    }

    /// The number of pairs of a map of `key` to `value`.
    pub fn pairs(&mut self, key: Type, value: Type) -> Result<usize, Error> {
        for expected in [key, value] {
            let found = self.u8()?;
            if found != expected as u8 {
                return Err(Error::ElementType { expected, found });
            }
        }
        self.size(key.least_size() + value.least_size())
    }

    /// A claimed container size. INVARIANT: never more than the bytes left can hold, so looping over it ends soon.
    fn size(&mut self, least: usize) -> Result<usize, Error> {
        let size = self.i32()?;
        match usize::try_from(size) {
            Err(_) => Err(Error::NegativeLength(size)),
            Ok(count) if count > self.left() / least => Err(Error::Oversized { size, left: self.left() }),
            Ok(count) => Ok(count),
        }
    }

    pub(super) fn too_deep(&self, depth: usize) -> Result<(), Error> {
        if depth > self.limits.depth as usize { Err(Error::TooDeep(self.limits.depth)) } else { Ok(()) }
    }

    /// Passes over a value of a type that nobody here knows. Iterative: depth costs heap, and is bounded.
    pub fn skip(&mut self, kind: Type) -> Result<(), Error> {
        enum Frame {
            Struct,
            List(Type, usize),
            Map(Type, Type, usize),
        }
        let mut stack: Vec<Frame> = Vec::new();
        let mut next = kind;
        loop {
            match next {
                Type::Stop => return Err(Error::UnknownType(0)),
                Type::Bool | Type::I8 => drop(self.take(1)?),
                Type::I16 => drop(self.take(2)?),
                Type::I32 => drop(self.take(4)?),
                Type::I64 => drop(self.take(8)?),
                Type::Double => drop(self.double()?),
                Type::String => drop(self.string()?),
                Type::Struct => stack.push(Frame::Struct),
                Type::List | Type::Set => {
                    let element = Type::from_byte(self.u8()?)?;
                    let size = self.size(element.least_size())?;
                    stack.push(Frame::List(element, size));
                }
                Type::Map => {
                    let key = Type::from_byte(self.u8()?)?;
                    let value = Type::from_byte(self.u8()?)?;
                    let size = self.size(key.least_size() + value.least_size())?;
                    // Keys and values alternate: an even number to go means that a key is next.
                    stack.push(Frame::Map(key, value, size * 2));
                }
            }
            self.too_deep(stack.len())?;
            next = loop {
                match stack.last_mut() {
                    None => return Ok(()),
                    Some(Frame::Struct) => match self.field()? {
                        Some((kind, _)) => break kind,
                        None => drop(stack.pop()),
                    },
                    Some(Frame::List(_, 0) | Frame::Map(_, _, 0)) => drop(stack.pop()),
                    Some(Frame::List(element, left)) => {
                        *left -= 1;
                        break *element;
                    }
                    Some(Frame::Map(key, value, left)) => {
                        *left -= 1;
                        break if *left % 2 == 1 { *key } else { *value };
                    }
                }
            };
        }
    }
}

// === impl Writer ===

impl Writer {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: Vec::with_capacity(capacity) }
    }

    pub fn into_bytes(self) -> Bytes {
        self.buffer.into()
    }

    pub fn into_vec(self) -> Vec<u8> {
        self.buffer
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn double(&mut self, value: f64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn string(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.raw(bytes);
    }

    /// A length or count. Bodies are bounded far below the 2 GiB that the format can say.
    fn size(&mut self, size: usize) {
        self.i32(i32::try_from(size).unwrap_or(i32::MAX));
    }

    pub fn field(&mut self, kind: Type, id: i16) {
        self.u8(kind as u8);
        self.i16(id);
    }

    pub fn stop(&mut self) {
        self.u8(Type::Stop as u8);
    }

    pub fn elements(&mut self, kind: Type, size: usize) {
        self.u8(kind as u8);
        self.size(size);
    }

    pub fn pairs(&mut self, key: Type, value: Type, size: usize) {
        self.u8(key as u8);
        self.u8(value as u8);
        self.size(size);
    }
}

// === impl Wire ===

macro_rules! wire_scalar {
    ($rust:ty, $kind:ident, $name:literal, $read:expr, $write:expr) => {
        impl Wire for $rust {
            const TYPE: Type = Type::$kind;
            fn read(reader: &mut Reader) -> Result<Self, Error> {
                $read(reader)
            }
            fn write(&self, writer: &mut Writer) {
                $write(writer, self)
            }
            fn idl() -> String {
                $name.to_owned()
            }
        }
    };
}

wire_scalar!(bool, Bool, "bool", |r: &mut Reader| Ok(r.u8()? != 0), |w: &mut Writer, v: &bool| w.u8(u8::from(*v)));
wire_scalar!(i32, I32, "i32", Reader::i32, |w: &mut Writer, v: &i32| w.i32(*v));
wire_scalar!(i64, I64, "i64", Reader::i64, |w: &mut Writer, v: &i64| w.i64(*v));
wire_scalar!(f64, Double, "double", Reader::double, |w: &mut Writer, v: &f64| w.double(*v));
wire_scalar!(Bytes, String, "string", Reader::string, |w: &mut Writer, v: &Bytes| w.string(v));

impl<T: Wire> Wire for Vec<T> {
    const TYPE: Type = Type::List;

    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let size = reader.elements(T::TYPE)?;
        let mut list = Vec::new();
        for _ in 0..size {
            list.push(T::read(reader)?);
        }
        Ok(list)
    }

    fn write(&self, writer: &mut Writer) {
        writer.elements(T::TYPE, self.len());
        for element in self {
            element.write(writer);
        }
    }

    fn idl() -> String {
        format!("list<{}>", T::idl())
    }
}
