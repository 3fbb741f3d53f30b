//! Which process this is: its number, known without asking the system each time.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static ID: AtomicU32 = AtomicU32::new(0);
static WATCHED: Once = Once::new();

/// The number of this process.
pub fn id() -> u32 {
    match ID.load(Ordering::Relaxed) {
        0 => ask(),
        id => id,
    }
}

#[cold]
fn ask() -> u32 {
    // SAFETY: what it has called in the child is one store.
    WATCHED.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(forget));
    });
    let id = std::process::id();
    ID.store(id, Ordering::Relaxed);
    id
}

extern "C" fn forget() {
    ID.store(0, Ordering::Relaxed);
}
