//! Batching of enqueues.
