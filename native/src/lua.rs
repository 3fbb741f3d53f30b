//! What is embedded of `../lua`. Must not know: any server.

pub mod layout;
pub mod library;
pub mod protocol;
