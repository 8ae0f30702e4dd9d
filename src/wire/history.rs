//! `list<Event>` as bytes: a history of any length is put together by copying.

use bytes::Bytes;

use super::codec::{Error, Limits, Reader, Type, Wire, Writer};
use super::state::Event;

/// Encoded events, in the order in which they travel.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Bytes>,
}

// === impl History ===

impl History {
    /// Each part is one event's wire encoding.
    pub fn from_encoded(events: Vec<Bytes>) -> Self {
        Self { events }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes of all events together.
    pub fn size(&self) -> usize {
        self.events.iter().map(Bytes::len).sum()
    }

    /// Decodes, for those who look inside.
    pub fn events(&self) -> impl Iterator<Item = Result<Event, Error>> {
        self.events.iter().map(|bytes| Event::read(&mut Reader::new(bytes.clone(), Limits::default())))
    }
}

impl PartialEq for History {
    fn eq(&self, other: &Self) -> bool {
        self.events == other.events
    }
}

impl Wire for History {
    const TYPE: Type = Type::List;

    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let size = reader.elements(Type::Struct)?;
        let mut events = Vec::new();
        for _ in 0..size {
            let from = reader.position();
            Event::read(reader)?;
            events.push(reader.since(from));
        }
        Ok(Self { events })
    }

    fn write(&self, writer: &mut Writer) {
        writer.elements(Type::Struct, self.events.len());
        for event in &self.events {
            writer.raw(event);
        }
    }

    fn size_hint(&self) -> usize {
        5 + self.size()
    }

    fn idl() -> String {
        "list<Event>".to_owned()
    }
}
