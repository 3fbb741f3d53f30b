//! Composes `lua/` into the library payload and into the single scripts for servers without
//! functions; its checksum; where a line of it came from. Owns the embedded files; knows no server.

use crate::error::Error;

/// The library of this build.
pub struct Library {}

/// One function as a script of its own.
pub struct Script {
    pub source: String,
    pub sha1: String,
}

impl Library {
    pub fn get() -> &'static Self {
        todo!()
    }

    /// The whole library for `FUNCTION LOAD`, composed anew each time: it is needed rarely, and
    /// idle workers need not hold it.
    pub fn payload(&self) -> String {
        todo!()
    }

    /// SHA1 of the payload, in hex.
    pub fn sha1(&self) -> &str {
        todo!()
    }

    /// # Errors
    /// [`Error::Argument`] when the protocol has no such function.
    pub fn script(&self, _function: &str) -> Result<Script, Error> {
        todo!()
    }

    /// An error message of the server with the source file and line in place of the payload's.
    pub fn locate(&self, _message: &str) -> String {
        todo!()
    }
}
