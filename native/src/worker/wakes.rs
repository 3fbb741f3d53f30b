//! Blocking on the wake lists while there is nothing to do.
//!
//! Owns: the connection that blocks. Must not know: what woke it; a step finds out.

use std::sync::atomic::Ordering;

use std::time::Duration;

use super::session::{End, Session};
use crate::connection::{Backoff, Connection};
use crate::mailbox::block_on;

/// While a lane is at its limit its wake list is left out; it may be wanted again soon.
const LIMITED_BLOCK: Duration = Duration::from_millis(50);

impl Session {
    /// The wake lists of the lanes that more may be claimed of, and how long to block on them.
    fn wanted(&self) -> (Vec<String>, Duration) {
        let longest = self.shared.config.poll_block;
        match self.shared.slots().open_lanes() {
            Some(open) if open.contains(&false) => {
                let wanted = self.wake_keys.iter().zip(open).filter(|(_, open)| *open);
                (wanted.map(|(key, _)| key.clone()).collect(), longest.min(LIMITED_BLOCK))
            }
            _ => (self.wake_keys.clone(), longest),
        }
    }

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
                let (keys, longest) = self.wanted();
                if !keys.is_empty() {
                    block_on(&live, &keys, longest).await?;
                }
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
