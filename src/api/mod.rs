//! The Thrift services: types of the wire to engine calls, errors to exceptions and statuses.

mod automaton;
mod failure;

pub use automaton::Automaton;
