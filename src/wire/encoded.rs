//! Lists as bytes: a history of any length is put together by copying.

use std::marker::PhantomData;

use bytes::Bytes;

use super::codec::{Error, Limits, Reader, Type, Wire, Writer};
use super::state::Event;

/// A `list<T>` of encoded elements, in the order in which they travel.
pub struct Encoded<T> {
    elements: Vec<Bytes>,
    of: PhantomData<fn() -> T>,
}

/// Events as a machine shows them.
pub type History = Encoded<Event>;

// === impl Encoded ===

impl<T: Wire> Encoded<T> {
    /// Each part is one element's wire encoding.
    pub fn from_encoded(elements: Vec<Bytes>) -> Self {
        Self { elements, of: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.elements.len()
    }

    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Bytes of all elements together.
    pub fn size(&self) -> usize {
        self.elements.iter().map(Bytes::len).sum()
    }

    /// Decodes, for those who look inside.
    pub fn decoded(&self) -> impl Iterator<Item = Result<T, Error>> {
        self.elements.iter().map(|bytes| T::read(&mut Reader::new(bytes.clone(), Limits::default())))
    }
}

impl<T> Clone for Encoded<T> {
    fn clone(&self) -> Self {
        Self { elements: self.elements.clone(), of: PhantomData }
    }
}

impl<T> Default for Encoded<T> {
    fn default() -> Self {
        Self { elements: Vec::new(), of: PhantomData }
    }
}

impl<T> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.elements == other.elements
    }
}

/// Only measured: what is in it is clients' data.
impl<T> std::fmt::Debug for Encoded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoded({} elements)", self.elements.len())
    }
}

impl<T: Wire> Wire for Encoded<T> {
    const TYPE: Type = Type::List;

    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let size = reader.elements(T::TYPE)?;
        let mut elements = Vec::new();
        for _ in 0..size {
            let from = reader.position();
            T::read(reader)?;
            elements.push(reader.since(from));
        }
        Ok(Self { elements, of: PhantomData })
    }

    fn write(&self, writer: &mut Writer) {
        writer.elements(T::TYPE, self.elements.len());
        for element in &self.elements {
            writer.raw(element);
        }
    }

    fn size_hint(&self) -> usize {
        5 + self.size()
    }

    fn idl() -> String {
        format!("list<{}>", T::idl())
    }
}
