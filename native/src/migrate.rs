//! `ardiq migrate`: what is installed, what is pending; load, verify, prune, under a lock.
//! Knows libraries and their versions; no queue.
