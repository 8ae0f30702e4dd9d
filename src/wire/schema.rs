//! What the declared types say of themselves, for the test that holds them equal to `thrift-idl/`.

/// A declared struct, union or exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub name: &'static str,
    pub union: bool,
    pub fields: Vec<Field>,
}

/// One field. `need` is the requiredness word of the declaration; `kind` the IDL type with typedefs resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub id: i16,
    pub name: &'static str,
    pub need: &'static str,
    pub kind: String,
}

pub trait Declared {
    fn schema() -> Schema;
}
