//! How later versions add fields: optional extensions are passed over, required ones are not
//! (PROTOCOL 2.2).

use kvx_core::wire::WireError;
use kvx_core::wire::handshake::HandshakeMessage;

use crate::format::{Format, Thing, decode, mended};
use crate::samples;

/// Every specimen that can carry extensions, with the place where they stand.
fn extensible() -> Vec<(String, Thing, usize)> {
    let place = |thing: &Thing| match thing {
        Thing::Frame(..) => None,
        Thing::Handshake(
            HandshakeMessage::Welcome(_)
            | HandshakeMessage::Confirm(_)
            | HandshakeMessage::LaneChallenge(_)
            | HandshakeMessage::LaneProof(_),
        ) => Some(32),
        Thing::Handshake(_) | Thing::Message { .. } => Some(0),
        Thing::Blob(_) => Some(4),
    };
    samples::all()
        .into_iter()
        .filter_map(|(name, thing)| {
            let at = thing.encode().len() - place(&thing)?;
            Some((name, thing, at))
        })
        .collect()
}

fn extension(tag: u16, value: &[u8]) -> Vec<u8> {
    let len = value.len() as u32;
    [&tag.to_le_bytes()[..], &[0, 0], &len.to_le_bytes(), value].concat()
}

fn extended(thing: &Thing, at: usize, extensions: &[u8]) -> (Format, Vec<u8>) {
    let mut bytes = thing.encode();
    bytes.splice(at..at, extensions.iter().copied());
    (thing.format(), mended(thing.format(), bytes))
}

#[test]
fn unknown_optional_extensions_change_nothing() {
    let both = [extension(0x101, b""), extension(0x7fff, b"of a later version")].concat();
    for (name, thing, at) in extensible() {
        let (format, bytes) = extended(&thing, at, &both);
        assert_eq!(decode(format, &bytes), Ok(thing.as_received()), "{name}");
    }
}

#[test]
fn an_unknown_required_extension_is_an_error_that_names_it() {
    let both = [extension(0x101, b"skipped"), extension(0x8102, b"needed")].concat();
    for (name, thing, at) in extensible() {
        let (format, bytes) = extended(&thing, at, &both);
        let error = decode(format, &bytes).unwrap_err();
        assert!(matches!(error, WireError::Required { tag: 0x8102, .. }), "{name}: {error}");
    }
}

#[test]
fn extensions_are_in_ascending_order_and_each_is_there_once() {
    let cases = [
        [extension(0x102, b""), extension(0x101, b"")],
        [extension(0x103, b"a"), extension(0x103, b"b")],
        [extension(0x103, b"a"), extension(0x8103, b"b")],
        [extension(0, b""), extension(1, b"")],
    ];
    for (name, thing, at) in extensible() {
        for case in &cases {
            let (format, bytes) = extended(&thing, at, &case.concat());
            let error = decode(format, &bytes).unwrap_err();
            assert!(matches!(error, WireError::Order { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn an_extension_cannot_reach_beyond_its_message() {
    let mut long = extension(0x101, b"value");
    long[4] += 1;
    for (name, thing, at) in extensible() {
        let (format, bytes) = extended(&thing, at, &long);
        let error = decode(format, &bytes).unwrap_err();
        assert!(matches!(error, WireError::Truncated { .. }), "{name}: {error}");
    }
}

#[test]
fn a_known_extension_has_its_length_and_is_known_as_required_too() {
    let secret = [7; 32];
    let known = [
        ("blob-metadata", extension(1, &secret)),
        ("handshake-3-confirm", extension(1, &[&[1; 8][..], &secret].concat())),
    ];
    for (name, right) in known {
        let (_, thing, at) = extensible().into_iter().find(|(found, ..)| found == name).unwrap();
        let read = |bytes: &[u8]| {
            let (format, bytes) = extended(&thing, at, bytes);
            decode(format, &bytes)
        };
        let optional = read(&right).unwrap();
        assert_ne!(optional, thing, "{name}: nothing of it was read");
        let mut required = right.clone();
        required[1] |= 0x80;
        assert_eq!(read(&required), Ok(optional), "{name}");
        let value = &right[8..];
        let error = read(&extension(1, &value[1..])).unwrap_err();
        assert!(matches!(error, WireError::Truncated { .. }), "{name}: {error}");
        let error = read(&extension(1, &[value, &[0]].concat())).unwrap_err();
        assert!(matches!(error, WireError::Trailing { .. }), "{name}: {error}");
    }
}
