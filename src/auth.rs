//! Who may connect (ARCHITECTURE, promise 4): the auth key from a file, or on loopback from one that all
//! engines of the user share. The proofs made with it are [`kvx_core::proto`]'s.

mod default_key;
mod file;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use kvx_core::error::{Cause, Invalid};
use kvx_core::proto::{Auth, AuthKey};
use zeroize::Zeroizing;

use crate::config::Config;

/// How an engine that listens on `bound` authenticates.
///
/// Without a key file and without `insecure`, an engine on loopback uses
/// [`default_loopback_key`]: other users of the host are strangers too.
///
/// # Errors
/// Off loopback neither is set; or the key file does not serve, see [`load`].
pub(crate) fn resolve(config: &Config, bound: SocketAddr) -> Result<Auth, Cause> {
    if *config.insecure {
        return Ok(Auth::Insecure);
    }
    if let Some(path) = config.auth_key_file.as_deref() {
        return load(path).map(Auth::SharedKey);
    }
    if bound.ip().to_canonical().is_loopback() {
        return default_loopback_key().map(Auth::SharedKey);
    }
    let why = format!(
        "required to listen on {bound}, which is not loopback: set KVX_AUTH_KEY_FILE to a file \
         with a key that all engines share, or KVX_INSECURE=1 to let anyone in"
    );
    Err(Invalid::Field { field: "auth_key_file", why }.into())
}

/// The key in the file at `path`: 16 to 4,096 bytes, less one newline at the end.
///
/// # Errors
/// The file cannot be read, is not a regular file, belongs to neither this user nor root, is open
/// to its group or to others, or is too short or too long.
pub(crate) fn load(path: &Path) -> Result<AuthKey, Cause> {
    let named = || format!("open auth key file {}", path.display());
    let file = file::open(path).map_err(|error| Cause::io(named(), error.into()))?;
    file::read_key(&file, path).map(auth_key)
}

/// The key that engines of this user share on loopback, made by the first that asks.
///
/// It lies in `kvx/auth.key` in the user's runtime directory (`$XDG_RUNTIME_DIR`, else
/// `/run/user/UID`), else in `kvx-UID/auth.key` in the directory for temporary files. Directories
/// that belong to someone else, or that others may enter, are not used. Where temporary files are
/// removed while engines run, later engines find a new key and are refused by the earlier ones;
/// such hosts want `KVX_AUTH_KEY_FILE`.
///
/// # Errors
/// No directory serves, or the file in it does not: see [`load`].
pub(crate) fn default_loopback_key() -> Result<AuthKey, Cause> {
    let places = default_key::places();
    default_key::load_or_create(&places).map(auth_key)
}

/// Hands the bytes over without a copy; `AuthKey` wipes them from here on.
fn auth_key(mut bytes: Zeroizing<Vec<u8>>) -> AuthKey {
    AuthKey::new(std::mem::take(&mut *bytes))
}

/// A file or directory that must not hold a secret, and why.
fn unfit(path: &Path, why: impl fmt::Display) -> Cause {
    let value = path.display().to_string();
    Invalid::Setting { name: "KVX_AUTH_KEY_FILE", value, why: why.to_string() }.into()
}

#[cfg(test)]
mod tests;
