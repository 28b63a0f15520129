//! Random bytes from the system: ids, keys and nonces are made of nothing else.

use kvx_core::error::Cause;

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Cause> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Cause::io("random bytes", std::io::Error::other(error)))?;
    Ok(bytes)
}
