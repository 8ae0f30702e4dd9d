//! The server against the conformance table of the RPC: one test per row, named after it, from raw bytes to raw bytes.
//! Rows that name a recorded reply hold it to the letter; the others hold status and class.

mod bodies;
mod codec;
mod connections;
mod envelope;
mod headers;
mod http;
mod idl;
mod peer;
mod results;
mod world;
