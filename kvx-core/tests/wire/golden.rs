//! The bytes stay what they are: files under `tests/golden` hold one of everything, and a change
//! of format shows as a difference.
//!
//! A format that peers of the previous version speak must not change. Where it changes on purpose
//! (a new type, a new version), `KVX_BLESS=1 cargo test -p kvx-core --test wire golden` writes the
//! files anew; they are reviewed like code.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use kvx_core::wire::FrameKind;
use kvx_core::wire::handshake::{HandshakeKind, HandshakeMessage};
use kvx_core::wire::message::Message;

use crate::format::{Thing, decode};
use crate::samples;

#[test]
fn every_format_is_byte_for_byte_what_it_was() {
    let bless = std::env::var_os("KVX_BLESS").is_some_and(|value| value == "1");
    for (name, thing) in samples::all() {
        let path = folder().join(format!("{name}.hex"));
        let bytes = thing.encode();
        if bless {
            fs::write(&path, to_hex(&bytes)).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(to_hex(&bytes), text, "{name} is encoded otherwise than before");
        assert_eq!(
            decode(thing.format(), &from_hex(&text)),
            Ok(thing.as_received()),
            "{name} is decoded otherwise than before"
        );
    }
}

#[test]
fn every_type_has_a_golden_vector_and_no_vector_is_left_over() {
    let samples = samples::all();
    let frames: BTreeSet<u8> = samples
        .iter()
        .filter_map(|(_, thing)| match thing {
            Thing::Frame(header, _) => Some(header.kind.code()),
            _ => None,
        })
        .collect();
    assert_eq!(frames, FrameKind::ALL.map(FrameKind::code).into());

    let handshakes: BTreeSet<u8> = samples
        .iter()
        .filter_map(|(_, thing)| match thing {
            Thing::Handshake(message) => Some(HandshakeMessage::kind(message).code()),
            _ => None,
        })
        .collect();
    assert_eq!(handshakes, HandshakeKind::ALL.map(HandshakeKind::code).into());

    let messages: Vec<u16> = samples::messages().iter().map(Message::kind).collect();
    let known: Vec<u16> = (0..=u16::MAX).filter(|kind| Message::name_of(*kind).is_some()).collect();
    assert_eq!(messages, known);

    let expected: BTreeSet<String> =
        samples.into_iter().map(|(name, _)| format!("{name}.hex")).collect();
    let found: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Sixteen bytes a line.
fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for (index, byte) in line.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(text, "{gap}{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
