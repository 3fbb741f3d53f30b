//! Blocking on the wake lists while there is nothing to do.
//!
//! Owns: the connection that blocks. Must not know: what woke it; a step finds out.

use std::sync::atomic::Ordering;

use std::time::Duration;

use super::session::{End, Session};
use crate::connection::{Backoff, Connection};
use crate::mailbox::block_on;

/// How long whoever leaves tries to end its block, and how often.
const UNBLOCK_PATIENCE: Duration = Duration::from_secs(1);
const UNBLOCK_AGAIN: Duration = Duration::from_millis(5);
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

    /// Ends the block, so that no token goes to a worker that leaves. One that it was given just before is passed on by
    /// the step that follows. Where the server does not allow it, a token may be lost: the task it stood for waits until
    /// another worker looks by itself, `poll_block` at the most.
    pub async fn unblock(&self) {
        let unblocked = async {
            while self.blocked.load(Ordering::Relaxed) {
                let client_id = self.blocking_client.load(Ordering::Relaxed);
                if client_id != 0 {
                    let mut command = redis::cmd("CLIENT");
                    command.arg("UNBLOCK").arg(client_id);
                    if self.shared.dispatcher.link().query(&command).await.is_err() {
                        return;
                    }
                }
                // The block may not have reached the server yet.
                tokio::time::sleep(UNBLOCK_AGAIN).await;
            }
        };
        let _ = tokio::time::timeout(UNBLOCK_PATIENCE, unblocked).await;
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
                    self.blocking_client.store(live.server().client_id, Ordering::Relaxed);
                    block_on(&live, &keys, longest).await?;
                }
                Ok(live)
            };
            let ended = blocking.await;
            self.blocking_client.store(0, Ordering::Relaxed);
            match ended {
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
