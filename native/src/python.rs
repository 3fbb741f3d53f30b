//! The classes that Python sees, and what becomes of values on the way. The only place where PyO3 may occur.

mod channel;
mod convert;
mod core;
mod error;
mod inbox;
mod watch;
mod worker;

pub use self::core::{Core, commands, composed, library, migration, script, trim_memory};
pub use channel::Channel;
pub use inbox::PyInbox;
pub use watch::{Health, StallDetector};
pub use worker::{Pool, Worker};
