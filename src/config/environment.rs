//! Options from `KVX_` variables. A value that does not parse is an error; a variable that names
//! no option is remembered, for a service mesh or a newer kvx may have set it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use kvx_core::error::Invalid;
use kvx_core::transport::TransportKind;

use super::options::OPTIONS;
use super::{Config, Source};

/// What every variable begins with.
const PREFIX: &str = "KVX_";

/// Variables of the project's own that are not options of an engine: which Python modules stand in
/// for others, and where test suites record the tests that they skip.
const OTHERS: [&str; 2] = ["KVX_DROP_IN", "KVX_SKIP_LOG"];

/// A `KVX_` variable that names no option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable that was meant, if one is close.
    pub meant: Option<&'static str>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not an option of this version", self.name)?;
        self.meant.map_or(Ok(()), |meant| write!(f, "; did you mean {meant}?"))
    }
}

impl Config {
    /// The options of the process's environment, over the defaults.
    ///
    /// # Errors
    /// [`Invalid::Setting`] with the variable, its value and what was expected.
    pub fn from_env() -> Result<Self, Invalid> {
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            match (value.into_string(), option_variable(name)) {
                (Ok(value), _) => variables.push((name.to_owned(), value)),
                (Err(_), None) => variables.push((name.to_owned(), String::new())),
                (Err(value), Some(name)) => {
                    let value = value.to_string_lossy().into_owned();
                    let why = "expected UTF-8".to_owned();
                    return Err(Invalid::Setting { name, value, why });
                }
            }
        }
        Self::from_env_vars(variables)
    }

    /// The options of these variables, over the defaults; the process's environment is not asked.
    /// Names that do not begin with `KVX_` are passed over, and so are empty values.
    ///
    /// # Errors
    /// [`Invalid::Setting`] with the variable, its value and what was expected.
    pub fn from_env_vars(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Invalid> {
        let mut config = Self::default();
        for (name, value) in variables {
            if !name.starts_with(PREFIX) || OTHERS.contains(&name.as_str()) {
                continue;
            }
            match option_variable(&name) {
                None => {
                    let meant = closest(&name);
                    config.unknown.push(UnknownVariable { name, meant });
                }
                Some(_) if value.is_empty() => {}
                Some(variable) => config
                    .set_variable(variable, &value, Source::Environment)
                    .map_err(|why| Invalid::Setting { name: variable, value, why })?,
            }
        }
        Ok(config)
    }

    /// Sets the option of this name, such as `bind`, to what its variable, `KVX_BIND`, would say so:
    /// for callers whose options are text. Like any setter it wins over the environment.
    ///
    /// # Errors
    /// [`Invalid::Field`]: no such option. [`Invalid::Setting`]: a value that it does not take.
    pub fn set(&mut self, option: &str, value: &str) -> Result<(), Invalid> {
        let Some((name, variable)) = OPTIONS.into_iter().find(|(name, _)| *name == option) else {
            return Err(Invalid::Field { field: "option", why: format!("there is no {option:?}") });
        };
        self.set_variable(variable, value, Source::Builder).map_err(|why| Invalid::Setting {
            name,
            value: value.to_owned(),
            why,
        })
    }

    /// Sets one option, or says what was expected.
    fn set_variable(
        &mut self,
        variable: &'static str,
        value: &str,
        source: Source,
    ) -> Result<(), String> {
        match variable {
            "KVX_TRANSPORTS" => self.transports.set(transports(value)?, source),
            "KVX_BIND" => self.bind.set(socket_address(value)?, source),
            "KVX_ADVERTISE" => self.advertise.set(list(value)?, source),
            "KVX_AUTH_KEY_FILE" => self.auth_key_file.set(Some(PathBuf::from(value)), source),
            "KVX_METADATA_AUTH" => self.metadata_auth.set(flag(value)?, source),
            "KVX_INSECURE" => self.insecure.set(flag(value)?, source),
            "KVX_DEADLINE" => self.deadline.set(seconds(value)?, source),
            "KVX_TOTAL_DEADLINE" => self.total_deadline.set(optional_seconds(value)?, source),
            "KVX_LANES" => self.lanes.set(Some(count(value)?), source),
            "KVX_IO_THREADS" => self.io_threads.set(Some(count(value)?), source),
            "KVX_NAME" => self.name.set(Some(value.to_owned()), source),
            "KVX_PEER_MEMORY" => self.peer_memory.set(bytes(value)?, source),
            "KVX_NOTIFICATION_WINDOW" => self.notification_window.set(bytes(value)?, source),
            "KVX_LOG" => self.log.set(value.to_owned(), source),
            // The names come from the table, which a test compares with this list.
            _ => return Err("not an option".to_owned()),
        }
        Ok(())
    }
}

fn option_variable(name: &str) -> Option<&'static str> {
    OPTIONS.into_iter().map(|(_, variable)| variable).find(|variable| *variable == name)
}

fn transports(value: &str) -> Result<Vec<TransportKind>, String> {
    let parse = |name: &str| TransportKind::from_str(name.trim());
    value.split(',').map(parse).collect::<Result<_, _>>().map_err(|error| match error {
        Invalid::Setting { why, .. } => why,
        other => other.to_string(),
    })
}

fn socket_address(value: &str) -> Result<SocketAddr, String> {
    let value = value.trim();
    let alone = || IpAddr::from_str(value).ok().map(|ip| SocketAddr::new(ip, 0));
    let address = SocketAddr::from_str(value).ok().or_else(alone);
    address.ok_or_else(|| "expected ip or ip:port, such as 127.0.0.1:8998 or [::1]:8998".to_owned())
}

fn list<T: FromStr<Err = String>>(value: &str) -> Result<Vec<T>, String> {
    value.split(',').map(|item| item.trim().parse()).collect()
}

fn flag(value: &str) -> Result<bool, String> {
    match value.trim() {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err("expected 1 or 0".to_owned()),
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let parsed = value.trim().parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    parsed
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected seconds above 0, such as 10 or 0.5".to_owned())
}

fn optional_seconds(value: &str) -> Result<Option<Duration>, String> {
    match value.trim() {
        "none" => Ok(None),
        value => seconds(value).map(Some).map_err(|why| format!("{why}, or none")),
    }
}

fn count(value: &str) -> Result<NonZeroU16, String> {
    value.trim().parse().map_err(|_| "expected a number of at least 1".to_owned())
}

fn bytes(value: &str) -> Result<u64, String> {
    let value = value.trim();
    let (number, shift) = match value.as_bytes().last() {
        Some(b'K' | b'k') => (&value[..value.len() - 1], 10),
        Some(b'M' | b'm') => (&value[..value.len() - 1], 20),
        Some(b'G' | b'g') => (&value[..value.len() - 1], 30),
        _ => (value, 0),
    };
    let number = number.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "expected bytes, or a number with K, M or G, such as 256M".to_owned())
}

/// The variable that differs from `name` by fewest edits, if those are few.
fn closest(name: &str) -> Option<&'static str> {
    let distances = OPTIONS.into_iter().map(|(_, option)| (edits(name, option), option));
    distances.min().filter(|(edits, _)| *edits <= 3).map(|(_, option)| option)
}

/// Levenshtein's distance of the two names in bytes, of which the first 64 count.
fn edits(left: &str, right: &str) -> usize {
    let left = &left.as_bytes()[..left.len().min(64)];
    let right = &right.as_bytes()[..right.len().min(64)];
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, byte) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[right.len()]
}
