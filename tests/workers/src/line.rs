//! Commands and answers of worker processes: one line of text each, `verb key=value key=value`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use kvx::Error;

/// A command, or the good answer to one.
#[derive(Clone, Debug)]
pub struct Line {
    /// The command, or `ok` and the like.
    pub verb: String,
    fields: BTreeMap<String, String>,
}

/// The bad answer to a command: the fields of the engine's [`Error`].
#[derive(Clone, Debug)]
pub struct Failure {
    /// The name of the variant.
    pub operation: String,
    /// The id of the peer's engine, else what errors call the peer.
    pub peer: Option<String>,
    /// The variant and its fields, as `Debug` shows them, without blanks.
    pub cause: String,
}

impl Line {
    /// Panics where a word after the verb is no field.
    pub fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let verb = words.next().unwrap_or_default().to_owned();
        let field = |word: &str| {
            let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{word} in {text}"));
            (key.to_owned(), value.to_owned())
        };
        Self { verb, fields: words.map(field).collect() }
    }

    /// A field, if it is there.
    pub fn find(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(String::as_str)
    }

    /// A field that must be there.
    pub fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_else(|| panic!("{key} is missing in {self:?}"))
    }

    /// A field that must be there, as a number or whatever else parses.
    pub fn number<T: FromStr<Err: Debug>>(&self, key: &str) -> T {
        self.get(key).parse().unwrap()
    }

    /// A field as a number, if it is there.
    pub fn find_number<T: FromStr<Err: Debug>>(&self, key: &str) -> Option<T> {
        self.find(key).map(|value| value.parse().unwrap())
    }

    /// A comma-separated list.
    pub fn numbers<T: FromStr<Err: Debug>>(&self, key: &str) -> Vec<T> {
        self.get(key).split(',').map(|item| item.parse().unwrap()).collect()
    }

    /// A field that counts milliseconds, if it is there.
    pub fn millis(&self, key: &str) -> Option<Duration> {
        self.find_number(key).map(Duration::from_millis)
    }
}

impl Failure {
    /// What a worker tells of an error.
    pub fn new(error: &Error) -> Self {
        let name = error.peer.as_ref();
        let peer = name.map(|peer| peer.id().map_or_else(|| peer.to_string(), hex_of));
        let cause: String = format!("{:?}", error.cause).split_whitespace().collect();
        Self { operation: format!("{:?}", error.operation), peer, cause }
    }

    /// As the worker says it.
    pub fn to_line(&self) -> String {
        let peer = self.peer.as_deref().unwrap_or("none");
        format!("error operation={} peer={peer} cause={}", self.operation, self.cause)
    }

    /// As the test hears it.
    pub fn from_line(line: &str) -> Self {
        // The cause is last and may hold anything but blanks.
        let mut words = line.splitn(4, ' ').skip(1).map(|word| word.split_once('=').unwrap().1);
        let mut next = || words.next().unwrap().to_owned();
        let (operation, peer, cause) = (next(), next(), next());
        Self { operation, peer: Some(peer).filter(|peer| peer != "none"), cause }
    }

    /// Whether the cause is one of these variants.
    pub fn is_one_of(&self, causes: &[&str]) -> bool {
        causes.iter().any(|cause| self.cause.starts_with(cause))
    }
}

/// The id of an engine as answers carry it.
pub fn hex_of(id: kvx::EngineId) -> String {
    hex(&id.0)
}

/// Bytes as answers carry them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of [`hex`].
pub fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// A list as [`Line::numbers`] reads it.
pub fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
