//! The client against a peer that follows a script: the cases of the conformance table, by their numbers.

mod outcomes;
mod pool;
mod script;
