//! The options as a table: what `kvx doctor` shows, what bounds hold, and what is made up where
//! nobody says anything.

use std::fmt::Display;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use kvx_core::error::{Cause, Invalid};

use super::{Config, Source, Sourced};

/// An option as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's name, that of its setter in [`Config`].
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// Its value, in the form that the environment variable takes; for an option left open, what
    /// that means, in parentheses.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
}

/// Names and variables of all options, in the order of their setters in [`Config`].
pub(super) const OPTIONS: [(&str, &str); 14] = [
    ("transports", "KVX_TRANSPORTS"),
    ("bind", "KVX_BIND"),
    ("advertise", "KVX_ADVERTISE"),
    ("auth_key_file", "KVX_AUTH_KEY_FILE"),
    ("metadata_auth", "KVX_METADATA_AUTH"),
    ("insecure", "KVX_INSECURE"),
    ("deadline", "KVX_DEADLINE"),
    ("total_deadline", "KVX_TOTAL_DEADLINE"),
    ("lanes", "KVX_LANES"),
    ("io_threads", "KVX_IO_THREADS"),
    ("name", "KVX_NAME"),
    ("peer_memory", "KVX_PEER_MEMORY"),
    ("notification_window", "KVX_NOTIFICATION_WINDOW"),
    ("log", "KVX_LOG"),
];

/// Lanes to a peer at most.
const MAX_LANES: u16 = 64;
/// I/O threads at most.
const MAX_IO_THREADS: u16 = 256;
/// Bytes of a name at most, as [`kvx_core::wire::handshake::Identity`] carries it.
const MAX_NAME: usize = 255;
/// A peer's memory must hold a frame's payload.
const MIN_PEER_MEMORY: u64 = kvx_core::wire::MAX_FRAME_PAYLOAD as u64;
/// A notification window must hold a few small notifications.
const MIN_NOTIFICATION_WINDOW: u64 = 1 << 20;

pub(super) fn settings(config: &Config) -> Vec<Setting> {
    let Config {
        transports,
        bind,
        advertise,
        auth_key_file,
        metadata_auth,
        insecure,
        deadline,
        total_deadline,
        lanes,
        io_threads,
        name,
        peer_memory,
        notification_window,
        log,
        unknown: _,
    } = config;
    let path = |path: &Path| path.display().to_string();
    let values = [
        shown(transports, list(transports)),
        shown(bind, bind.to_string()),
        shown(advertise, some_or(!advertise.is_empty(), list(advertise), "(the bound address)")),
        shown(auth_key_file, auth_key_file.as_deref().map_or("(none)".to_owned(), path)),
        shown(metadata_auth, u8::from(**metadata_auth).to_string()),
        shown(insecure, u8::from(**insecure).to_string()),
        shown(deadline, seconds(**deadline)),
        shown(total_deadline, total_deadline.map_or("none".to_owned(), seconds)),
        shown(lanes, number_or(**lanes, "(as many as the transport likes best)".to_owned())),
        shown(io_threads, number_or(**io_threads, format!("({})", config.io_thread_count()))),
        shown(name, name.as_deref().unwrap_or("(host-pid-random)").to_owned()),
        shown(peer_memory, bytes(**peer_memory)),
        shown(notification_window, bytes(**notification_window)),
        shown(log, (**log).clone()),
    ];
    let named = OPTIONS.into_iter().zip(values);
    named
        .map(|((name, variable), (value, source))| Setting { name, variable, value, source })
        .collect()
}

pub(super) fn validate(config: &Config) -> Result<(), Invalid> {
    let fail = |field, why: String| Err(Invalid::Field { field, why });
    if config.transports.is_empty() {
        return fail("transports", "expected at least one".to_owned());
    }
    if let Some(twice) = first_repeated(&config.transports) {
        return fail("transports", format!("{twice} is named twice"));
    }
    if *config.insecure && config.auth_key_file.is_some() {
        return fail("insecure", "contradicts auth_key_file: expected one of them".to_owned());
    }
    if config.deadline.is_zero() {
        return fail("deadline", "expected more than 0 s".to_owned());
    }
    if config.total_deadline.is_some_and(|deadline| deadline.is_zero()) {
        return fail("total_deadline", "expected more than 0 s, or none".to_owned());
    }
    if config.lanes.is_some_and(|lanes| lanes.get() > MAX_LANES) {
        return fail("lanes", format!("expected 1 to {MAX_LANES}"));
    }
    if config.io_threads.is_some_and(|threads| threads.get() > MAX_IO_THREADS) {
        return fail("io_threads", format!("expected 1 to {MAX_IO_THREADS}"));
    }
    if let Some(name) = config.name.as_deref()
        && (name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control))
    {
        return fail("name", format!("expected 1 to {MAX_NAME} bytes, no control characters"));
    }
    if *config.peer_memory < MIN_PEER_MEMORY {
        return fail("peer_memory", format!("expected at least {}", bytes(MIN_PEER_MEMORY)));
    }
    if !(MIN_NOTIFICATION_WINDOW..=*config.peer_memory).contains(&*config.notification_window) {
        let least = bytes(MIN_NOTIFICATION_WINDOW);
        let most = bytes(*config.peer_memory);
        return fail("notification_window", format!("expected {least} to peer_memory ({most})"));
    }
    Ok(())
}

impl Config {
    /// Threads that move bytes: as set, else the smaller of 4 and the cores.
    pub(crate) fn io_thread_count(&self) -> NonZeroU16 {
        const MOST: NonZeroU16 = NonZeroU16::new(4).unwrap();
        self.io_threads.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().ok();
            let cores = cores.and_then(|cores| NonZeroU16::try_from(cores).ok());
            cores.map_or(MOST, |cores| cores.min(MOST))
        })
    }

    /// The engine's name: as set, else made up from the host's, the process's id and 32 random
    /// bits, so that it is another one for each engine.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub(crate) fn engine_name(&self) -> Result<String, Cause> {
        if let Some(name) = self.name.as_deref() {
            return Ok(name.to_owned());
        }
        let random = getrandom::u32()
            .map_err(|error| Cause::io("get random bytes", std::io::Error::other(error)))?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(made_up_name(host.trim(), std::process::id(), random))
    }
}

fn made_up_name(host: &str, pid: u32, random: u32) -> String {
    let host = if host.is_empty() || host.contains(char::is_control) { "host" } else { host };
    format!("{host}-{pid}-{random:08x}")
}

fn shown<T>(option: &Sourced<T>, value: String) -> (String, Source) {
    (value, option.source)
}

fn some_or(some: bool, value: String, open: &str) -> String {
    if some { value } else { open.to_owned() }
}

fn number_or(number: Option<NonZeroU16>, open: String) -> String {
    number.map_or(open, |number| number.to_string())
}

fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

/// The largest unit that leaves no fraction.
fn bytes(bytes: u64) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(shift, name)| format!("{}{name}", bytes >> shift))
}

fn first_repeated<T: PartialEq>(items: &[T]) -> Option<&T> {
    items.iter().enumerate().find(|(at, item)| items[..*at].contains(item)).map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_names_host_process_and_engine() {
        assert_eq!(made_up_name("node7", 42, 0xab), "node7-42-000000ab");
        assert_eq!(made_up_name("", 1, 0), "host-1-00000000");
        let (first, second) = (Config::default().engine_name(), Config::default().engine_name());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_ne!(first, second);
        assert!(Config::default().name(first).validate().is_ok());
        assert_eq!(Config::default().name("mine").engine_name().unwrap(), "mine");
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_they_parse_from() {
        for (number, text) in [(0, "0"), (1023, "1023"), (1536, "1536"), (1 << 10, "1K")] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!((bytes(256 << 20), bytes(3 << 30)), ("256M".to_owned(), "3G".to_owned()));
    }
}
