//! Blocking on the wake lists while there is nothing to do.
//!
//! Owns: the connection that blocks. Must not know: what woke it; a step finds out.

use std::sync::atomic::Ordering;

use super::session::{End, Session};
use crate::connection::{Backoff, Connection};
use crate::mailbox::block_on;

impl Session {
    /// Blocks whenever it is asked to, for ever. However that ends, a step follows: a token that this worker
    /// has no use for is passed on by it.
    pub async fn wakes(&self) -> End {
        let shared = &self.shared;
        let connector = shared.dispatcher.link().connector();
        let mut backoff = Backoff::default();
        let mut connection: Option<Connection> = None;
        loop {
            self.block.notified().await;
            let blocking = async {
                let live = match connection.take().filter(Connection::is_alive) {
                    Some(live) => live,
                    None => connector.dedicated().await?,
                };
                block_on(&live, &self.wake_keys, shared.config.poll_block).await?;
                Ok(live)
            };
            match blocking.await {
                Ok(live) => {
                    backoff.reset();
                    connection = Some(live);
                }
                Err(error) => {
                    shared.trouble(&error);
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
            self.blocked.store(false, Ordering::Relaxed);
            let wake = shared.slots().poke();
            shared.wake_if(wake);
        }
    }
}
