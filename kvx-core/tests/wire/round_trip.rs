//! What is written is what is read.

use bytes::Bytes;
use kvx_core::wire::handshake::{
    HandshakeKind, HandshakeMessage, MAC_LEN, MAX_HANDSHAKE, without_mac,
};
use kvx_core::wire::message::Message;
use proptest::prelude::*;

use crate::format::{Thing, decode};
use crate::{samples, strategies};

proptest! {
    #[test]
    fn everything_survives_the_wire(thing in strategies::thing()) {
        let bytes = thing.encode();
        prop_assert_eq!(decode(thing.format(), &bytes), Ok(thing.as_received()));
    }

    #[test]
    fn a_body_is_appended_to_what_the_buffer_holds(
        before in proptest::collection::vec(any::<u8>(), 0..40),
        message in strategies::message(),
    ) {
        let mut alone = Vec::new();
        message.encode_body(&mut alone).unwrap();
        let mut behind = before.clone();
        message.encode_body(&mut behind).unwrap();
        prop_assert_eq!(behind, [before, alone].concat());
    }
}

#[test]
fn a_type_has_one_number_and_one_name_and_its_number_says_whether_it_is_sequenced() {
    for message in samples::messages() {
        assert_eq!(Message::name_of(message.kind()), Some(message.name()));
        let debug = format!("{message:?}");
        assert!(debug.starts_with(message.name()), "{debug}");
        assert_eq!(message.is_sequenced(), message.kind() >= 16);
    }
}

#[test]
fn notification_parts_and_payloads_are_slices_of_what_was_received() {
    let content = Bytes::from_static(&[7; 1000]);
    let notify = Message::Notify { after: None, more: false, bytes: content.clone() };
    let end = Message::SessionEnd { grant: kvx_core::id::GrantId(1), writes: 0, payload: content };
    for message in [notify, end] {
        let mut body = Vec::new();
        message.encode_body(&mut body).unwrap();
        let body = Bytes::from(body);
        let (Message::Notify { bytes: part, .. } | Message::SessionEnd { payload: part, .. }) =
            Message::decode(message.kind(), body.clone()).unwrap()
        else {
            panic!("another type came back");
        };
        assert_eq!(part.len(), 1000);
        assert!(body.as_ptr_range().contains(&part.as_ptr()), "the part was copied");
    }
}

#[test]
fn what_a_message_brings_beside_a_part_is_not_kept_with_it() {
    let content = Bytes::from_static(&[7; 10]);
    let notify = Message::Notify { after: None, more: false, bytes: content.clone() };
    let end = Message::SessionEnd { grant: kvx_core::id::GrantId(1), writes: 0, payload: content };
    for message in [notify, end] {
        let mut body = Vec::new();
        message.encode_body(&mut body).unwrap();
        // An extension that nobody knows, of half a megabyte.
        body.extend([5, 0, 0, 0, 0, 0, 8, 0]);
        body.resize(body.len() + (512 << 10), 0);
        let body = Bytes::from(body);
        let (Message::Notify { bytes: part, .. } | Message::SessionEnd { payload: part, .. }) =
            Message::decode(message.kind(), body.clone()).unwrap()
        else {
            panic!("another type came back");
        };
        assert_eq!(part, [7; 10][..]);
        assert!(!body.as_ptr_range().contains(&part.as_ptr()), "the part keeps all of the body");
    }
}

#[test]
fn a_welcome_without_its_proof_is_what_comes_before_its_last_32_bytes() {
    let welcome = samples::all().into_iter().find_map(|(_, thing)| match thing {
        Thing::Handshake(HandshakeMessage::Welcome(welcome)) => Some(welcome),
        _ => None,
    });
    let welcome = welcome.unwrap();
    let whole = HandshakeMessage::Welcome(welcome.clone()).encode().unwrap();
    let proven = welcome.encode_without_mac().unwrap();
    assert_eq!(without_mac(&whole), proven);
    assert_eq!([&proven[..], &welcome.mac].concat(), whole);
}

#[test]
fn every_proof_is_the_end_of_its_message() {
    for (name, thing) in samples::all() {
        let bytes = thing.encode();
        let mac = match thing {
            Thing::Handshake(HandshakeMessage::Welcome(message)) => message.mac,
            Thing::Handshake(HandshakeMessage::Confirm(message)) => message.mac,
            Thing::Handshake(HandshakeMessage::LaneChallenge(message)) => message.mac,
            Thing::Handshake(HandshakeMessage::LaneProof(message)) => message.mac,
            _ => continue,
        };
        assert_eq!(bytes[bytes.len() - MAC_LEN..], mac, "{name}");
    }
}

#[test]
fn a_prefix_tells_the_type_and_how_much_follows() {
    for (_, thing) in samples::all() {
        let Thing::Handshake(message) = &thing else {
            continue;
        };
        let bytes = thing.encode();
        let (kind, len) = HandshakeMessage::decode_prefix(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!((kind, len + 8), (message.kind(), bytes.len()));
        assert!(bytes.len() <= MAX_HANDSHAKE);
        assert_eq!(HandshakeKind::from_code(kind.code()), Some(kind));
    }
}
