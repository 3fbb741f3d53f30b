//! Functions of the library at a server: one call, and what it takes to make calls there. Must not know: any function by
//! name.

pub mod args;
pub mod dispatch;
pub mod migrate;
pub mod schema;
