//! The types of the wire that need no declaration: scalars, strings, lists.

use bytes::Bytes;

use super::codec::{Error, Reader, Type, Wire, Writer};

macro_rules! wire_scalar {
    ($rust:ty, $kind:ident, $name:literal, $read:expr, $write:expr) => {
        impl Wire for $rust {
            const TYPE: Type = Type::$kind;
            #[inline]
            fn read(reader: &mut Reader) -> Result<Self, Error> {
                $read(reader)
            }
            #[inline]
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

impl Wire for Bytes {
    const TYPE: Type = Type::String;

    #[inline]
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        reader.string()
    }

    #[inline]
    fn write(&self, writer: &mut Writer) {
        writer.string(self);
    }

    fn size_hint(&self) -> usize {
        4 + self.len()
    }

    fn idl() -> String {
        "string".to_owned()
    }
}

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

    fn size_hint(&self) -> usize {
        self.iter().fold(5, |sum, element| sum + element.size_hint())
    }

    fn idl() -> String {
        format!("list<{}>", T::idl())
    }
}
