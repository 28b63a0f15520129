//! Who may connect (ARCHITECTURE, promise 4): who holds the auth key from a file, or on loopback from one
//! that all engines of the user share; or who holds the engine's metadata. The proofs made with them are
//! [`kvx_core::proto`]'s.

mod default_key;
mod file;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use kvx_core::error::{Cause, Invalid};
use kvx_core::proto::{Auth, AuthKey};
use kvx_core::wire::metadata::MetadataSecret;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::random;

/// Why a peer cannot be dialed whose metadata carries no secret, or of which there is none.
const NOTHING_TO_DIAL_WITH: &str =
    "required to dial a peer without its secret: expected a file with a key that it shares";

/// Whom an engine lets in, and how it proves itself to those that it dials.
#[derive(Debug)]
pub(crate) struct Access {
    /// What lets a dialer in; never empty.
    pub(crate) accepts: Vec<Auth>,
    /// For peers whose metadata carries no secret; or why they cannot be dialed.
    pub(crate) dials: Result<Auth, Cause>,
    /// What this engine's metadata carries.
    pub(crate) secret: Option<MetadataSecret>,
}

/// Whom an engine that listens on `bound` lets in.
///
/// Without a key file and without `insecure`, an engine on loopback uses
/// [`default_loopback_key`]: other users of the host are strangers too. With `metadata_auth` that key
/// opens nothing here, nor does `insecure` let anybody in: they are for dialing alone.
///
/// # Errors
/// Off loopback neither is set, nor `metadata_auth`; or the key file does not serve, see [`load`].
pub(crate) fn resolve(config: &Config, bound: SocketAddr) -> Result<Access, Cause> {
    let own = own(config, bound);
    if !*config.metadata_auth {
        let why = format!(
            "required to listen on {bound}, which is not loopback: set KVX_AUTH_KEY_FILE to a file \
             with a key that all engines share, KVX_METADATA_AUTH=1 to let in who holds the \
             engine's metadata, or KVX_INSECURE=1 to let anyone in"
        );
        let own = own.unwrap_or_else(|| Err(missing(why)))?;
        return Ok(Access { accepts: vec![own.clone()], dials: Ok(own), secret: None });
    }
    let secret = MetadataSecret::new(*Zeroizing::new(random::bytes()?));
    let mut accepts = vec![Auth::Metadata(secret.clone())];
    if config.auth_key_file.is_some()
        && let Some(key) = &own
    {
        accepts.push(key.clone()?);
    }
    let dials = own.unwrap_or_else(|| Err(missing(NOTHING_TO_DIAL_WITH.to_owned())));
    Ok(Access { accepts, dials, secret: Some(secret) })
}

/// How an engine proves itself where nothing else is said; `None`: it has nothing.
fn own(config: &Config, bound: SocketAddr) -> Option<Result<Auth, Cause>> {
    if *config.insecure {
        return Some(Ok(Auth::Insecure));
    }
    if let Some(path) = config.auth_key_file.as_deref() {
        return Some(load(path).map(Auth::SharedKey));
    }
    let loopback = bound.ip().to_canonical().is_loopback();
    loopback.then(|| default_loopback_key().map(Auth::SharedKey))
}

fn missing(why: String) -> Cause {
    Invalid::Field { field: "auth_key_file", why }.into()
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
