//! What a worker is told to be.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::lanes::Lane;
use super::pool::PoolShare;
use crate::engine::observer::Observer;
use crate::engine::stalls::Stall;

/// What a worker is told to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// For people; the identity is this and something random.
    pub label: String,
    /// JSON object about the process, for people.
    pub info: String,
    /// Highest priority first.
    pub lanes: Vec<Lane>,
    /// Tasks that run at once.
    pub concurrency: usize,
    /// Tasks held ahead at most; adaptive in any case.
    pub prefetch: Option<usize>,
    pub lease: Duration,
    /// How long to block for a wake-up token.
    pub poll_block: Duration,
    pub result_ttl_ms: i64,
    /// How many workers a task may take down.
    pub max_lost: i64,
    /// Say when nothing is left to do.
    pub burst: bool,
    /// For how long the server may be away before the worker gives up, if ever.
    pub give_up_after: Option<Duration>,
    /// Names of the tasks that threads take.
    pub thread_tasks: HashSet<Vec<u8>>,
    /// Names of the tasks that take batches.
    pub batch_tasks: HashSet<Vec<u8>>,
    /// Its place, where other queues of this process share the slots.
    pub pool_share: Option<PoolShare>,
    /// Who counts what it does, where somebody wants to know.
    pub observer: Option<Arc<Observer>>,
    /// The event loop that starts its tasks, where somebody watches it.
    pub stall: Option<Arc<Stall>>,
}
