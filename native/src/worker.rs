//! The worker's I/O loop: step, heartbeat, mailbox, prefetch.
