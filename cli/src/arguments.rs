//! Arguments that several commands take, parsed: what exists is valid, and a mistake is answered with
//! what is allowed.

use std::num::NonZeroU16;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kvx::transport::TransportKind;

/// The transports of the engine, by name.
pub(crate) const TRANSPORTS: [&str; 2] = ["shm", "tcp"];

/// Lanes between two engines at most, as [`kvx::Config::lanes`] says.
const MAX_LANES: u16 = 64;

/// Takes a transport's name; clap lists the names where another is given.
pub(crate) fn transport() -> impl TypedValueParser<Value = TransportKind> {
    let names = PossibleValuesParser::new(TRANSPORTS);
    names.try_map(|name| name.parse::<TransportKind>())
}

/// Takes a number of lanes.
pub(crate) fn lanes(text: &str) -> Result<NonZeroU16, String> {
    let lanes = text.parse().ok().filter(|lanes| (1..=MAX_LANES).contains(lanes));
    lanes.and_then(NonZeroU16::new).ok_or_else(|| format!("expected 1 to {MAX_LANES}"))
}
