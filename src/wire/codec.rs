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
    /// About how many bytes [`Self::write`] appends: what may be long counts in full, so that buffers need not grow.
    fn size_hint(&self) -> usize {
        8
    }
    /// The type as the IDL spells it, typedefs resolved (`string` stands for binary too).
    fn idl() -> String;
}

// === impl Type ===

impl Type {
    /// The types that a strict peer may send. Void, the obsolete numbers and uuid are refused.
    #[inline]
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
    #[inline]
    pub(super) fn least_size(self) -> usize {
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
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    #[inline]
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes from `from` up to here, shared with the input.
    #[inline]
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

    #[inline]
    pub(super) fn take(&mut self, wanted: usize) -> Result<&[u8], Error> {
        let left = self.left();
        if wanted > left {
            return Err(Error::Truncated { wanted, at: self.at, left });
        }
        let from = self.at;
        self.at += wanted;
        Ok(&self.bytes[from..self.at])
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub fn i16(&mut self) -> Result<i16, Error> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    #[inline]
    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    #[inline]
    pub fn i64(&mut self) -> Result<i64, Error> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// NaN and infinities can't exist in the peers' language: they are refused wherever they stand.
    #[inline]
    pub fn double(&mut self) -> Result<f64, Error> {
        let double = f64::from_be_bytes(self.array()?);
        if double.is_finite() { Ok(double) } else { Err(Error::NotFinite) }
    }

    /// A string or binary, without a look at its contents.
    #[inline]
    pub fn string(&mut self) -> Result<Bytes, Error> {
        let length = self.length()?;
        let from = self.at;
        self.take(length)?;
        Ok(self.since(from))
    }

    #[inline]
    pub(super) fn length(&mut self) -> Result<usize, Error> {
        let length = self.i32()?;
        usize::try_from(length).map_err(|_| Error::NegativeLength(length))
    }

    /// Passes over text that must be UTF-8.
    pub(super) fn skip_utf8(&mut self) -> Result<(), Error> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Error::NotUtf8)?;
        Ok(())
    }

    /// The next field's type and id, or none at the struct's end.
    #[inline]
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
    #[inline]
    pub(super) fn size(&mut self, least: usize) -> Result<usize, Error> {
        let size = self.i32()?;
        match usize::try_from(size) {
            Err(_) => Err(Error::NegativeLength(size)),
            Ok(count) if count > self.left() / least => Err(Error::Oversized { size, left: self.left() }),
            Ok(count) => Ok(count),
        }
    }

    #[inline]
    pub(super) fn too_deep(&self, depth: usize) -> Result<(), Error> {
        if depth > self.limits.depth as usize { Err(Error::TooDeep(self.limits.depth)) } else { Ok(()) }
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

    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn double(&mut self, value: f64) {
        self.raw(&value.to_be_bytes());
    }

    #[inline]
    pub fn string(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.raw(bytes);
    }

    /// A length or count. Bodies are bounded far below the 2 GiB that the format can say.
    fn size(&mut self, size: usize) {
        self.i32(i32::try_from(size).unwrap_or(i32::MAX));
    }

    #[inline]
    pub fn field(&mut self, kind: Type, id: i16) {
        let [high, low] = id.to_be_bytes();
        self.raw(&[kind as u8, high, low]);
    }

    #[inline]
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
