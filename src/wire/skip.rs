//! Passing over what nobody here knows.

use super::codec::{Error, Reader, Type};

/// A container that is being passed over, and what is still to come of it.
enum Frame {
    Struct,
    List(Type, usize),
    /// Keys and values alternate: after an even number of them a key is next.
    Map(Type, Type, usize),
}

// === impl Reader ===

impl Reader {
    /// Passes over a value of any type. Iterative: depth costs heap, and is bounded.
    #[inline]
    pub fn skip(&mut self, kind: Type) -> Result<(), Error> {
        if self.skip_scalar(kind)? { Ok(()) } else { self.skip_parts(kind) }
    }

    /// Passes over the rest of a struct. An empty one allocates nothing.
    pub(super) fn skip_fields(&mut self) -> Result<(), Error> {
        while let Some((kind, _)) = self.field()? {
            self.skip(kind)?;
        }
        Ok(())
    }

    /// Passes over a value without parts; false for one that has parts, with nothing read.
    #[inline]
    fn skip_scalar(&mut self, kind: Type) -> Result<bool, Error> {
        let width = match kind {
            Type::Bool | Type::I8 => 1,
            Type::I16 => 2,
            Type::I32 => 4,
            Type::I64 => 8,
            Type::String => self.length()?,
            Type::Double => return self.double().map(|_| true),
            Type::Stop | Type::Struct | Type::Map | Type::Set | Type::List => return Ok(false),
        };
        self.take(width)?;
        Ok(true)
    }

    fn skip_parts(&mut self, kind: Type) -> Result<(), Error> {
        self.too_deep(1)?;
        let mut stack = vec![self.open(kind)?];
        while let Some(top) = stack.last_mut() {
            let part = match top {
                Frame::Struct => self.field()?.map(|(kind, _)| kind),
                Frame::List(_, 0) | Frame::Map(_, _, 0) => None,
                Frame::List(element, left) => {
                    *left -= 1;
                    Some(*element)
                }
                Frame::Map(key, value, left) => {
                    *left -= 1;
                    Some(if *left % 2 == 1 { *key } else { *value })
                }
            };
            match part {
                None => drop(stack.pop()),
                Some(part) if self.skip_scalar(part)? => {}
                Some(part) => {
                    self.too_deep(stack.len() + 1)?;
                    stack.push(self.open(part)?);
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, kind: Type) -> Result<Frame, Error> {
        match kind {
            Type::Struct => Ok(Frame::Struct),
            Type::List | Type::Set => {
                let element = Type::from_byte(self.u8()?)?;
                Ok(Frame::List(element, self.size(element.least_size())?))
            }
            Type::Map => {
                let key = Type::from_byte(self.u8()?)?;
                let value = Type::from_byte(self.u8()?)?;
                Ok(Frame::Map(key, value, 2 * self.size(key.least_size() + value.least_size())?))
            }
            // A stop is no value, so nothing consists of stops; scalars have no parts.
            _ => Err(Error::UnknownType(kind as u8)),
        }
    }
}
