//! What a worker is doing, for those who watch it.

use std::time::{Duration, Instant};

use super::slots::Phase;
use super::{Shared, Worker};
use crate::call::dispatch::Dispatcher;
use crate::engine::observer::Observer;
use crate::engine::stalls::Stall;

/// A worker at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub phase: Phase,
    pub concurrency: usize,
    /// Attempts that were started and are not settled.
    pub in_flight: usize,
    /// Tasks that are held and not started.
    pub held: usize,
    /// Threads that run on after their task was settled.
    pub abandoned_threads: usize,
    /// How long ago the server last renewed the lease; nothing before it did, or when the lease is lost.
    pub answered_ago: Option<Duration>,
    pub lease: Duration,
}

impl Worker {
    pub fn figures(&self) -> Figures {
        let Shared { config, .. } = &*self.shared;
        let slots = self.shared.slots();
        Figures {
            phase: slots.phase,
            concurrency: config.concurrency,
            in_flight: slots.started(),
            held: slots.held(),
            abandoned_threads: slots.abandoned_threads(),
            answered_ago: slots.lease_ends().map(|ends| Instant::now().saturating_duration_since(ends - config.lease)),
            lease: config.lease,
        }
    }

    /// The names of the lanes it serves, highest priority first.
    pub fn lanes(&self) -> impl Iterator<Item = &str> {
        self.shared.config.lanes.iter().map(|lane| lane.name.as_str())
    }

    /// Who counts for it.
    pub fn observer(&self) -> Option<&Observer> {
        self.shared.config.observer.as_deref()
    }

    /// The event loop that starts its tasks.
    pub fn stall(&self) -> Option<&Stall> {
        self.shared.config.stall.as_deref()
    }

    /// The way to its queue.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.shared.dispatcher
    }
}
