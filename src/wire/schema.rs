//! What the declared types say of themselves, for the test that holds them equal to `thrift-idl/`.

use super::codec::{Wire, Writer};

/// A declared struct, union or exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub name: &'static str,
    pub union: bool,
    pub fields: Vec<Field>,
}

/// One field. `need` is the requiredness word of the declaration, `optional` in a union; `kind` the IDL type with
/// typedefs resolved and without its file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub id: i16,
    pub name: &'static str,
    pub need: &'static str,
    pub kind: String,
    /// What stands in for a missing field, encoded.
    pub default: Option<Vec<u8>>,
}

pub trait Declared {
    fn schema() -> Schema;
}

/// A value's encoding, to compare defaults by.
pub fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut writer = Writer::default();
    value.write(&mut writer);
    writer.into_vec()
}

/// A field's name as the IDL spells it, where Rust needs a raw identifier.
pub const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}
