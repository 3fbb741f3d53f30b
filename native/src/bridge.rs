//! The Python-call boundary: inbox, outbox, waking the event loop.

#[cfg(feature = "python")]
mod channel {
    use pyo3::prelude::*;

    use crate::core::Core;

    /// One event loop's side of the boundary.
    #[pyclass(frozen, module = "ardiq._core")]
    pub struct Channel {}

    impl Channel {
        pub(crate) fn open(_core: &Bound<'_, Core>) -> PyResult<Self> {
            todo!()
        }
    }
}

#[cfg(feature = "python")]
pub use channel::Channel;
