//! Several instances on one table, what befalls them, and clients that know what they were told.

pub mod client;
pub mod cluster;
pub mod storm;
pub mod tags;
pub mod torment;
