//! Bytes from anyone: nothing panics, nothing is accepted that should not be.

use bytes::Bytes;
use kvx_core::wire::WireError;
use kvx_core::wire::handshake::{HandshakeKind, HandshakeMessage};
use kvx_core::wire::message::Message;
use kvx_core::wire::metadata::Metadata;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::format::{Format, Thing, decode, mended};
use crate::{samples, strategies};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        for format in Format::ALL {
            let _ = decode(format, &bytes);
            let _ = decode(format, &mended(format, bytes.clone()));
        }
        for kind in HandshakeKind::ALL {
            let _ = HandshakeMessage::decode(kind, &bytes);
        }
        let bytes = Bytes::from(bytes);
        for message in samples::messages() {
            let _ = Message::decode(message.kind(), bytes.clone());
        }
    }

    /// What passes after a change is as good as what was never changed: it can be written, and
    /// reading that gives the same again.
    #[test]
    fn changed_bytes_never_panic_and_what_passes_is_sound(
        thing in strategies::thing(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        mend in any::<bool>(),
    ) {
        let format = thing.format();
        let mut bytes = thing.encode();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] ^= value;
        }
        let bytes = if mend { mended(format, bytes) } else { bytes };
        if let Ok(read) = decode(format, &bytes) {
            let again = decode(format, &read.encode());
            prop_assert_eq!(again, Ok(read.as_received()));
        }
    }

    /// Counts and lengths are the fields through which a few bytes ask for much memory.
    #[test]
    fn a_length_blown_up_anywhere_never_panics(
        thing in strategies::thing(),
        at in any::<Index>(),
        value in prop_oneof![Just(u32::MAX), Just(1 << 31), Just(1 << 24), 0..100_000u32],
    ) {
        let format = thing.format();
        let mut bytes = thing.encode();
        let at = at.index(bytes.len() - 3);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let _ = decode(format, &mended(format, bytes));
    }

    #[test]
    fn a_damaged_blob_is_told_from_garbage(
        metadata in strategies::metadata(),
        at in any::<Index>(),
        change in 1..=u8::MAX,
    ) {
        let mut blob = metadata.encode().unwrap();
        let at = at.index(blob.len());
        blob[at] ^= change;
        let error = Metadata::decode(&blob).unwrap_err();
        let told = match at {
            0..4 => matches!(error, WireError::Magic { .. }),
            4..6 => matches!(error, WireError::Unknown { what: "metadata version", .. }),
            _ => matches!(error, WireError::Checksum { .. }),
        };
        prop_assert!(told, "byte {}: {}", at, error);
    }
}

#[test]
fn bytes_that_end_early_are_an_error_at_every_length() {
    for (name, thing) in samples::all() {
        let format = thing.format();
        let bytes = thing.encode();
        // The least that a length can be put right in: before it, nothing can be mended.
        let prefix = match format {
            Format::Frame | Format::Blob => 0,
            Format::Handshake => 8,
            Format::Message => 24,
        };
        for len in 0..bytes.len() {
            let cut = bytes[..len].to_vec();
            assert!(decode(format, &cut).is_err(), "{name} passed with {len} bytes");
            if len >= prefix {
                let cut = decode(format, &mended(format, cut));
                // Without its extension, which is all of 8 and 40 or 32 bytes, it is whole as well.
                let whole = match name.as_str() {
                    "handshake-3-confirm-mark" => len == bytes.len() - 48,
                    "blob-metadata-secret" => len == bytes.len() - 40,
                    _ => false,
                };
                assert_eq!(cut.is_ok(), whole, "{name} mended at {len}");
            }
        }
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    for (name, thing) in samples::all() {
        // What follows the reason of a Reject without details are extensions, as anywhere.
        let format = thing.format();
        for extra in 1..=16 {
            let mut bytes = thing.encode();
            let at = match &thing {
                Thing::Blob(_) => bytes.len() - 4,
                Thing::Handshake(message) if ends_with_proof(message) => bytes.len() - 32,
                _ => bytes.len(),
            };
            bytes.splice(at..at, vec![0; extra]);
            let bytes = mended(format, bytes);
            assert!(decode(format, &bytes).is_err(), "{name} passed with {extra} zeros more");
        }
    }
}

fn ends_with_proof(message: &HandshakeMessage) -> bool {
    matches!(
        message,
        HandshakeMessage::Welcome(_)
            | HandshakeMessage::Confirm(_)
            | HandshakeMessage::LaneChallenge(_)
            | HandshakeMessage::LaneProof(_)
    )
}

#[test]
fn a_foreign_protocol_shows_in_the_first_eight_bytes() {
    for hello in [b"GET / HT", b"SSH-2.0-", b"\x16\x03\x01\x02\x00\x01\x00\x01", &[0; 8]] {
        assert_eq!(
            HandshakeMessage::decode_prefix(hello),
            Err(WireError::Magic { what: "handshake" })
        );
    }
}
