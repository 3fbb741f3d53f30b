//! Bytes to and from a server. Must not know: any library, function, key or queue.

pub mod address;
pub mod clock;
pub mod connection;
pub mod error;
pub mod packed;
pub mod reactor;
pub mod replies;
pub mod values;
