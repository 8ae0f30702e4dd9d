//! The core against a small model of its own.
