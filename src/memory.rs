//! Host memory of an engine: buffers that the engine allocates, memory that the caller owns,
//! copies between regions of one engine, and a page that tells forked processes apart. It does not know rights, peers or transfers; and nothing
//! else in this crate is unsafe.
//!
//! Registered memory is written by others at any time: by system calls of the engine's lanes, by
//! peers on the same host, by other threads. Three rules keep that sound:
//!
//! - No `&[u8]`, `&mut [u8]` or `IoSlice` is ever formed over it. It is an address and a length.
//! - Memory of the caller may be unmapped while it is registered. Only system calls touch it, which
//!   answer `EFAULT` where a load would kill the process.
//! - [`Buffer`] cannot be unmapped or cut while anyone holds it, so that loads and stores are
//!   allowed. They are atomic ones (`words`), for which a concurrent access is a torn value at
//!   worst, never undefined behaviour.

mod available;
mod buffer;
mod caller;
mod local;
mod process;
mod words;

pub use buffer::Buffer;
pub use caller::CallerMemory;
pub(crate) use local::{LocalCopy, copy_local};
#[doc(hidden)]
pub use process::process_id;
