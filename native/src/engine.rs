//! What goes on by itself on the I/O thread. Must not know: Python.

pub mod claims;
pub mod events;
pub mod health;
pub mod hub;
pub mod mailbox;
pub mod observer;
pub mod outcomes;
pub mod process;
pub mod producer;
pub mod registry;
pub mod runtime;
pub mod stalls;
pub mod turns;
pub mod worker;
