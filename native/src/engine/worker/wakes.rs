//! Blocking on the wake lists while there is nothing to do.
//!
//! Owns: the connection that blocks. Must not know: what woke it; a step finds out.

use std::sync::atomic::Ordering;

use std::time::Duration;

use super::lock;
use super::session::{End, Session};
use crate::engine::mailbox::block_on;
use crate::wire::connection::{Backoff, Connection};
use crate::wire::error::Error;

/// How long whoever leaves tries to end its block, and how often.
const UNBLOCK_PATIENCE: Duration = Duration::from_secs(1);
const UNBLOCK_AGAIN: Duration = Duration::from_millis(5);
/// While a lane is at its limit its wake list is left out. Where the server does not let such a block be ended when the
/// lane is wanted again, it is a short one.
const LIMITED_BLOCK: Duration = Duration::from_millis(50);

impl Session {
    /// The wake lists of the lanes that more may be claimed of, and how long to block on them.
    fn wanted(&self) -> (Vec<String>, Duration) {
        let longest = self.shared.config.poll_block;
        let open = self.shared.slots().open_lanes().unwrap_or_default();
        let is_partial = open.contains(&false);
        lock(&self.blocked_on).clone_from(&open);
        if !is_partial {
            return (self.wake_keys.clone(), longest);
        }
        let wanted = self.wake_keys.iter().zip(open).filter(|(_, open)| *open);
        let can_end = self.can_unblock.load(Ordering::Relaxed);
        (wanted.map(|(key, _)| key.clone()).collect(), if can_end { longest } else { longest.min(LIMITED_BLOCK) })
    }

    /// Whether a lane is wanted that the block leaves out, because it was at its limit then, and it can be ended.
    pub fn is_outdated(&self) -> bool {
        if !self.can_unblock.load(Ordering::Relaxed) {
            return false;
        }
        let Some(open) = self.shared.slots().open_lanes() else { return false };
        lock(&self.blocked_on).iter().zip(open).any(|(before, now)| now && !before)
    }

    /// Ends the block: so that it is begun anew on other lists, or no token goes to a worker that leaves. One that it was
    /// given just before is passed on by the step that follows. Where the server does not allow it, a token may be lost: the task it stood for waits until
    /// another worker looks by itself, `poll_block` at the most.
    pub async fn unblock(&self) {
        let unblocked = async {
            while self.blocked.load(Ordering::Relaxed) {
                let client_id = self.blocking_client.load(Ordering::Relaxed);
                if client_id != 0 {
                    let mut command = redis::cmd("CLIENT");
                    command.arg("UNBLOCK").arg(client_id);
                    if let Err(error) = self.shared.dispatcher.link().query(&command).await {
                        // The server is there, and refuses.
                        if !matches!(error, Error::Broker { .. }) {
                            self.can_unblock.store(false, Ordering::Relaxed);
                        }
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
        let link = shared.dispatcher.link();
        let mut backoff = Backoff::default();
        let mut connection: Option<Connection> = None;
        loop {
            self.block.notified().await;
            let blocking = async {
                let live = match connection.take().filter(|one| one.is_alive() && !link.is_newer_than(one)) {
                    Some(live) => live,
                    None => link.connector().dedicated().await?,
                };
                let (keys, longest) = self.wanted();
                if !keys.is_empty() {
                    self.blocking_client.store(live.server().client_id, Ordering::Relaxed);
                    block_on(&live, &keys, longest).await?;
                }
                Ok(live)
            };
            let ended = tokio::select! {
                ended = blocking => Some(ended),
                // What broke the shared connection may have left this one half-open, and nothing would ever come on it.
                () = link.made() => None,
            };
            self.blocking_client.store(0, Ordering::Relaxed);
            match ended {
                Some(Ok(live)) => {
                    backoff.reset();
                    connection = Some(live);
                }
                Some(Err(error)) => {
                    shared.trouble(&error);
                    link.pause(&mut backoff).await;
                }
                None => {}
            }
            self.blocked.store(false, Ordering::Relaxed);
            let wake = shared.slots().poke();
            shared.wake_if(wake);
        }
    }
}
