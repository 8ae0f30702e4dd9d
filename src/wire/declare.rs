//! The small language in which the interface types are declared, close to the IDL.
//!
//! Fields are written in the order of the declaration, which is not always that of their ids: the peers' writers do so.
//! Reading takes the first occurrence of a known field of the declared type and skips everything else, as the peers do.

/// A struct or exception. Each field: `id => name: requiredness type`, where requiredness is
/// `required` (missing is an error), `optional` (an `Option`), `default` (an argument: always written, missing is an
/// error), or `filled` with `= default` (always written, the default stands in for a missing one).
#[macro_export]
macro_rules! thrift_struct {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $id:literal => $field:ident: $need:ident $type:ty $(= $fill:expr)?),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $crate::thrift_struct!(@type $need $type),)* }

        impl $crate::wire::Wire for $name {
            const TYPE: $crate::wire::Type = $crate::wire::Type::Struct;

            #[allow(unused_mut, clippy::never_loop)]
            fn read(reader: &mut $crate::wire::Reader) -> Result<Self, $crate::wire::Error> {
                $(let mut $field: Option<$type> = None;)*
                while let Some((kind, id)) = reader.field()? {
                    match id {
                        $($id if kind == <$type as $crate::wire::Wire>::TYPE && $field.is_none() => {
                            $field = Some(<$type as $crate::wire::Wire>::read(reader)?);
                        })*
                        _ => reader.skip(kind)?,
                    }
                }
                Ok(Self { $($field: $crate::thrift_struct!(@finish $need $name $field $(= $fill)?),)* })
            }

            fn write(&self, writer: &mut $crate::wire::Writer) {
                $($crate::thrift_struct!(@write $need self.$field, $id, $type, writer);)*
                writer.stop();
            }

            fn size_hint(&self) -> usize {
                1 $(+ $crate::thrift_struct!(@hint $need self.$field))*
            }

            fn idl() -> String {
                stringify!($name).to_owned()
            }
        }

        impl $crate::wire::schema::Declared for $name {
            fn schema() -> $crate::wire::schema::Schema {
                $crate::wire::schema::Schema {
                    name: stringify!($name),
                    union: false,
                    fields: vec![$($crate::wire::schema::Field {
                        id: $id,
                        name: $crate::wire::schema::plain(stringify!($field)),
                        need: stringify!($need),
                        kind: <$type as $crate::wire::Wire>::idl(),
                        default: $crate::thrift_struct!(@default $($fill)?),
                    },)*],
                }
            }
        }
    )*};
    (@default) => { None };
    (@default $fill:expr) => { Some($crate::wire::schema::encoded(&$fill)) };
    (@type optional $type:ty) => { Option<$type> };
    (@type $need:ident $type:ty) => { $type };
    (@finish optional $name:ident $field:ident) => { $field };
    (@finish filled $name:ident $field:ident = $fill:expr) => { $field.unwrap_or($fill) };
    (@finish $need:ident $name:ident $field:ident) => {
        $field.ok_or($crate::wire::Error::Missing {
            of: stringify!($name),
            field: $crate::wire::schema::plain(stringify!($field)),
        })?
    };
    (@hint optional $self:ident.$field:ident) => {
        $self.$field.as_ref().map_or(0, |value| 3 + $crate::wire::Wire::size_hint(value))
    };
    (@hint $need:ident $self:ident.$field:ident) => { 3 + $crate::wire::Wire::size_hint(&$self.$field) };
    (@write optional $self:ident.$field:ident, $id:literal, $type:ty, $writer:ident) => {
        if let Some(value) = &$self.$field {
            $writer.field(<$type as $crate::wire::Wire>::TYPE, $id);
            $crate::wire::Wire::write(value, $writer);
        }
    };
    (@write $need:ident $self:ident.$field:ident, $id:literal, $type:ty, $writer:ident) => {
        $writer.field(<$type as $crate::wire::Wire>::TYPE, $id);
        $crate::wire::Wire::write(&$self.$field, $writer);
    };
}

/// A union: `id => idl_name: Variant(type)`. Exactly one known field stands in it; unknown ones beside it are skipped.
#[macro_export]
macro_rules! thrift_union {
    ($($(#[$meta:meta])* pub enum $name:ident { $($(#[$field_meta:meta])* $id:literal => $field:ident: $variant:ident($type:ty)),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name { $($(#[$field_meta])* $variant($type),)* }

        impl $crate::wire::Wire for $name {
            const TYPE: $crate::wire::Type = $crate::wire::Type::Struct;

            fn read(reader: &mut $crate::wire::Reader) -> Result<Self, $crate::wire::Error> {
                let mut found: Option<Self> = None;
                while let Some((kind, id)) = reader.field()? {
                    let value = match id {
                        $($id if kind == <$type as $crate::wire::Wire>::TYPE => {
                            Self::$variant(<$type as $crate::wire::Wire>::read(reader)?)
                        })*
                        _ => {
                            reader.skip(kind)?;
                            continue;
                        }
                    };
                    if found.replace(value).is_some() {
                        return Err($crate::wire::Error::Union { of: stringify!($name), found: "several" });
                    }
                }
                found.ok_or($crate::wire::Error::Union { of: stringify!($name), found: "none that is known" })
            }

            fn write(&self, writer: &mut $crate::wire::Writer) {
                match self {
                    $(Self::$variant(value) => {
                        writer.field(<$type as $crate::wire::Wire>::TYPE, $id);
                        $crate::wire::Wire::write(value, writer);
                    })*
                }
                writer.stop();
            }

            fn size_hint(&self) -> usize {
                match self {
                    $(Self::$variant(value) => 4 + $crate::wire::Wire::size_hint(value),)*
                }
            }

            fn idl() -> String {
                stringify!($name).to_owned()
            }
        }

        impl $crate::wire::schema::Declared for $name {
            fn schema() -> $crate::wire::schema::Schema {
                $crate::wire::schema::Schema {
                    name: stringify!($name),
                    union: true,
                    fields: vec![$($crate::wire::schema::Field {
                        id: $id,
                        name: $crate::wire::schema::plain(stringify!($field)),
                        need: "optional",
                        kind: <$type as $crate::wire::Wire>::idl(),
                        default: None,
                    },)*],
                }
            }
        }
    )*};
}

/// An enum of numbered symbols: `idl_name Variant = number`. An unknown number is an error.
#[macro_export]
macro_rules! thrift_enum {
    ($($(#[$meta:meta])* pub enum $name:ident { $($symbol:ident $variant:ident = $number:literal),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant = $number,)* }

        impl $name {
            /// The symbols as the IDL names and numbers them.
            pub const SYMBOLS: &'static [(&'static str, i32)] = &[$((stringify!($symbol), $number),)*];
        }

        impl $crate::wire::Wire for $name {
            const TYPE: $crate::wire::Type = $crate::wire::Type::I32;

            fn read(reader: &mut $crate::wire::Reader) -> Result<Self, $crate::wire::Error> {
                match reader.i32()? {
                    $($number => Ok(Self::$variant),)*
                    number => Err($crate::wire::Error::UnknownSymbol { of: stringify!($name), number }),
                }
            }

            fn write(&self, writer: &mut $crate::wire::Writer) {
                writer.i32(*self as i32);
            }

            fn idl() -> String {
                stringify!($name).to_owned()
            }
        }
    )*};
}

/// A method of a service, as an uninhabited type that carries its name, arguments, result and exceptions.
/// `Start = "Start" (StartArgs) -> Void throws { 1 => NamespaceNotFound }`.
#[macro_export]
macro_rules! thrift_methods {
    ($($(#[$meta:meta])* $name:ident = $wire:literal ($args:ty) -> $success:ty $(, throws { $($id:literal => $exception:literal),* $(,)? })? ;)*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub enum $name {}

        impl $crate::wire::Method for $name {
            const NAME: &'static str = $wire;
            const THROWS: &'static [(i16, &'static str)] = &[$($(($id, $exception),)*)?];
            type Args = $args;
            type Success = $success;
        }
    )*};
}
