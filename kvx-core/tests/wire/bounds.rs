//! Lists and texts up to their bounds pass, and beyond them are an error on both sides.

use bytes::Bytes;
use kvx_core::error::HandshakeError;
use kvx_core::id::{GrantId, RegionId, Slot, TransferId};
use kvx_core::layout::{Layout, MAX_POOLS, Pool};
use kvx_core::region::RegionKey;
use kvx_core::wire::handshake::{HandshakeKind, HandshakeMessage, Hello, MAX_HANDSHAKE};
use kvx_core::wire::message::{
    Grant, MAX_BODY, MAX_GRANT_BLOCKS, MAX_GRANT_SLOTS, MAX_LISTED_REGIONS, MAX_NOTIFY_PART,
    MAX_OPEN_REGIONS, MAX_PAYLOAD, MAX_REASON, MAX_SLOTS_CLOSED, Message, MessageHeader,
    OpenRegion, RegionOpened,
};
use kvx_core::wire::metadata::{MAX_REGIONS, Metadata, MetadataSecret};
use kvx_core::wire::{MAX_ADDRESSES, MAX_TRANSPORTS, WireError};

use crate::format::{Format, Thing, decode, mended};
use crate::samples;

/// Makes a message whose list is of this length.
type OfLength = Box<dyn Fn(usize) -> Message>;

/// Every list in a message, by its bound.
fn of_length() -> Vec<(usize, OfLength)> {
    let grant = GrantId(1);
    vec![
        (
            MAX_OPEN_REGIONS,
            Box::new(|len| {
                let (region, key) = (RegionId::new(1, 1), RegionKey::new([1; 16]));
                Message::OpenRegions(vec![OpenRegion { region, key }; len])
            }),
        ),
        (
            MAX_OPEN_REGIONS,
            Box::new(|len| {
                let opened = RegionOpened { region: RegionId::new(1, 1), slot: Ok(Slot(1)) };
                Message::RegionsOpened(vec![opened; len])
            }),
        ),
        (
            MAX_LISTED_REGIONS,
            Box::new(|len| {
                let region = samples::metadata().regions.remove(0);
                Message::RegionsListed { more: true, regions: vec![region; len] }
            }),
        ),
        (MAX_SLOTS_CLOSED, Box::new(|len| Message::SlotsClosed(vec![Slot(1); len]))),
        (
            MAX_GRANT_BLOCKS,
            Box::new(move |len| Message::GrantBlocks { grant, blocks: vec![1; len] }),
        ),
        (
            MAX_GRANT_BLOCKS,
            Box::new(move |len| Message::Grant(Box::new(big_grant(len, MAX_GRANT_SLOTS)))),
        ),
        (
            MAX_GRANT_SLOTS,
            Box::new(move |len| Message::Grant(Box::new(big_grant(MAX_GRANT_BLOCKS, len)))),
        ),
        (
            MAX_NOTIFY_PART,
            Box::new(|len| Message::Notify {
                after: Some(TransferId(1)),
                more: true,
                bytes: vec![1; len].into(),
            }),
        ),
        (
            MAX_PAYLOAD,
            Box::new(move |len| Message::SessionEnd {
                grant,
                writes: 1,
                payload: vec![1; len].into(),
            }),
        ),
        (
            MAX_REASON,
            Box::new(|len| {
                let Message::SessionAbort { session, grant, by_receiver, .. } =
                    sample("SessionAbort")
                else {
                    panic!("no sample");
                };
                Message::SessionAbort { session, grant, by_receiver, reason: "x".repeat(len) }
            }),
        ),
        (
            255,
            Box::new(|len| {
                let Message::DirectoryGet { request, mut rank, wait_ms } = sample("DirectoryGet")
                else {
                    panic!("no sample");
                };
                rank.instance = "x".repeat(len);
                Message::DirectoryGet { request, rank, wait_ms }
            }),
        ),
        (
            MAX_ADDRESSES,
            Box::new(|len| {
                let Message::DirectoryPut { rank, mut entry } = sample("DirectoryPut") else {
                    panic!("no sample");
                };
                entry.addresses = vec!["[::1]:1".parse().unwrap(); len];
                Message::DirectoryPut { rank, entry }
            }),
        ),
    ]
}

/// The specimen of this name.
fn sample(name: &str) -> Message {
    samples::messages().into_iter().find(|message| message.name() == name).unwrap()
}

/// With as many pools as a layout can have.
fn big_grant(blocks: usize, slots: usize) -> Grant {
    let Message::Grant(grant) = sample("Grant") else {
        panic!("no sample");
    };
    let pools = (0..MAX_POOLS as u32).map(|region| Pool { region, offset: 0 }).collect();
    Grant {
        layout: Layout { layers: MAX_POOLS as u32 / 2, pools, ..grant.layout },
        slots: vec![Slot(1); slots],
        total_blocks: u32::MAX,
        blocks: vec![1; blocks],
        ..*grant
    }
}

#[test]
fn every_list_passes_at_its_bound_and_not_beyond() {
    for (bound, of_length) in of_length() {
        let message = of_length(bound);
        let mut body = Vec::new();
        message.encode_body(&mut body).unwrap();
        assert!(body.len() <= MAX_BODY);
        assert_eq!(Message::decode(message.kind(), body.into()), Ok(message));

        let mut out = b"before".to_vec();
        let beyond = of_length(bound + 1);
        let error = beyond.encode_body(&mut out).unwrap_err();
        assert!(matches!(error, WireError::Limit { .. }), "{}: {error}", beyond.name());
        assert_eq!(out, b"before", "{} left bytes behind", beyond.name());
    }
}

/// All the bytes are there; only the bound speaks against it.
#[test]
fn a_list_beyond_its_bound_is_refused_by_the_reader() {
    let mut body = (MAX_SLOTS_CLOSED as u32 + 1).to_le_bytes().to_vec();
    body.resize(4 + 4 * (MAX_SLOTS_CLOSED + 1), 0);
    let limit = MAX_SLOTS_CLOSED as u64;
    let error = Message::decode(18, body.into()).unwrap_err();
    assert_eq!(error, WireError::Limit { what: "closed slots", value: limit + 1, limit });
}

#[test]
fn a_message_beyond_one_mebibyte_is_refused_by_its_header_and_by_its_body() {
    let header =
        |body_len| MessageHeader { body_len, kind: 18, sequence: 1, acknowledged: 0 }.encode();
    assert!(MessageHeader::decode(&header(MAX_BODY as u32)).is_ok());
    let error = MessageHeader::decode(&header(MAX_BODY as u32 + 1)).unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "message length", .. }), "{error}");
    let body = Bytes::from(vec![0; MAX_BODY + 1]);
    assert!(matches!(Message::decode(1, body), Err(WireError::Limit { .. })));
}

#[test]
fn a_message_has_a_number_exactly_if_its_type_is_of_the_sequence() {
    for message in samples::messages() {
        for sequence in [0, 1, u64::MAX] {
            let header =
                MessageHeader { body_len: 0, kind: message.kind(), sequence, acknowledged: 7 };
            let fits = message.is_sequenced() == (sequence != 0);
            assert_eq!(MessageHeader::decode(&header.encode()).is_ok(), fits, "{header:?}");
        }
    }
}

#[test]
fn ids_that_count_from_one_are_never_zero() {
    for (message, what) in [
        (Message::Cancel { transfer: TransferId(0) }, "transfer"),
        (Message::GrantBlocks { grant: GrantId(0), blocks: vec![] }, "grant"),
    ] {
        let error = WireError::Value { what, value: 0 };
        assert_eq!(message.encode_body(&mut Vec::new()), Err(error));
        let body = Bytes::from_static(&[0; 12]);
        assert_eq!(Message::decode(message.kind(), body), Err(error));
    }
}

/// Else the first frame under the grant would end the lane, and the next lane, and so on.
#[test]
fn a_grant_has_a_slot_for_every_region_of_its_layout() {
    let Message::Grant(grant) = sample("Grant") else {
        panic!("no sample");
    };
    let mut body = Vec::new();
    let message = |slots: usize| {
        let slots = grant.slots[..slots].to_vec();
        Message::Grant(Box::new(Grant { slots, ..(*grant).clone() }))
    };
    message(4).encode_body(&mut body).unwrap();
    let error = WireError::Value { what: "region of a pool", value: 3 };
    assert_eq!(message(3).encode_body(&mut Vec::new()), Err(error));
    // The column of slots comes before that of two block ids: 4 and 4 * 4 bytes, then 4 and 2 * 4.
    let at = body.len() - 12 - 20;
    body[at] = 3;
    body.drain(at + 16..at + 20);
    assert_eq!(Message::decode(26, body.into()), Err(error));
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let layers =
        |first, count| Message::Layers { transfer: TransferId(1), grant: GrantId(1), first, count };
    for (message, body) in [
        (layers(0, 0), [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (
            layers(u32::MAX, 1),
            [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0],
        ),
    ] {
        assert!(message.encode_body(&mut Vec::new()).is_err());
        assert!(Message::decode(28, Bytes::copy_from_slice(&body)).is_err());
    }

    for (first, count, body) in [
        (0, 0, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (u32::MAX, 1, [1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0]),
    ] {
        let message = Message::ReadExpired { transfer: TransferId(1), first, count };
        assert!(message.encode_body(&mut Vec::new()).is_err());
        assert!(Message::decode(34, Bytes::copy_from_slice(&body)).is_err());
    }

    let endless = Message::Notify { after: None, more: true, bytes: Bytes::new() };
    assert!(endless.encode_body(&mut Vec::new()).is_err());
    let body = [&[0; 8][..], &[1], &[0; 4]].concat();
    assert!(Message::decode(24, body.into()).is_err());
    let endless = Message::RegionsListed { more: true, regions: Vec::new() };
    assert!(endless.encode_body(&mut Vec::new()).is_err());
    assert!(Message::decode(36, Bytes::from_static(&[1, 0, 0, 0, 0])).is_err());

    let mut over = big_grant(10, MAX_GRANT_SLOTS);
    over.total_blocks = 9;
    let mut body = Vec::new();
    let message = Message::Grant(Box::new(over));
    assert!(message.encode_body(&mut body).is_err() || Message::decode(26, body.into()).is_err());
}

#[test]
fn a_layout_that_makes_no_sense_never_comes_out_of_a_message() {
    let mut grant = big_grant(1, MAX_GRANT_SLOTS);
    grant.layout.heads.total = 1;
    let mut body = Vec::new();
    Message::Grant(Box::new(grant)).encode_body(&mut body).unwrap();
    let error = Message::decode(26, body.into()).unwrap_err();
    assert!(matches!(error, WireError::Inconsistent { .. }), "{error}");
}

#[test]
fn a_hello_at_its_bounds_fits_a_handshake_message_and_beyond_them_is_refused() {
    let hello = samples::all().into_iter().find_map(|(_, thing)| match thing {
        Thing::Handshake(HandshakeMessage::Hello(hello)) => Some(hello),
        _ => None,
    });
    let mut hello: Hello = hello.unwrap();
    let offer = hello.identity.transports[0];
    hello.identity.name = "x".repeat(255).into();
    hello.identity.addresses = vec!["[::1]:1".parse().unwrap(); MAX_ADDRESSES];
    hello.identity.transports = vec![offer; MAX_TRANSPORTS];
    let bytes = HandshakeMessage::Hello(hello.clone()).encode().unwrap();
    assert!(bytes.len() <= MAX_HANDSHAKE / 2, "no room for extensions: {}", bytes.len());
    assert_eq!(
        decode(Format::Handshake, &bytes),
        Ok(Thing::Handshake(HandshakeMessage::Hello(hello.clone())))
    );

    let mut long_name = hello.clone();
    long_name.identity.name = "x".repeat(256).into();
    let mut addresses = hello.clone();
    addresses.identity.addresses.push("[::1]:1".parse().unwrap());
    let mut transports = hello.clone();
    transports.identity.transports.push(offer);
    for hello in [long_name, addresses, transports] {
        let error = HandshakeMessage::Hello(hello).encode().unwrap_err();
        assert!(matches!(error, WireError::Limit { .. }), "{error}");
    }
    let mut versions = hello;
    (versions.version_min, versions.version_max) = (3, 2);
    assert!(HandshakeMessage::Hello(versions).encode().is_err());
}

#[test]
fn a_handshake_message_beyond_its_bound_is_refused_by_its_prefix() {
    let prefix = |len: u16| {
        let [low, high] = len.to_le_bytes();
        [b'K', b'V', b'X', b'\n', 1, 0, low, high]
    };
    let most = MAX_HANDSHAKE as u16 - 8;
    assert_eq!(
        HandshakeMessage::decode_prefix(&prefix(most)),
        Ok((HandshakeKind::Hello, most.into()))
    );
    assert!(HandshakeMessage::decode_prefix(&prefix(most + 1)).is_err());
    assert!(HandshakeMessage::decode(HandshakeKind::Hello, &[0; MAX_HANDSHAKE]).is_err());
}

#[test]
fn a_reason_of_a_later_version_is_reported_by_its_number() {
    let body = [99, 0, 1, 2, 3];
    let message = HandshakeMessage::decode(HandshakeKind::Reject, &body).unwrap();
    let HandshakeMessage::Reject(reject) = message else { panic!("{message:?}") };
    let unknown = WireError::Unknown { what: "reject code", value: 99 };
    assert_eq!(reject.reason, HandshakeError::Malformed(unknown));
}

#[test]
fn a_blob_of_65536_regions_passes_at_48_bytes_each_and_one_more_is_refused() {
    let mut metadata = samples::metadata();
    let region = metadata.regions[0].clone();
    metadata.regions.clear();
    let bare = metadata.encode().unwrap().len();
    metadata.regions = vec![region.clone(); MAX_REGIONS];
    let blob = metadata.encode().unwrap();
    assert!(blob.len() - bare <= 48 * MAX_REGIONS, "{}", blob.len());
    assert_eq!(Metadata::decode(&blob).as_ref(), Ok(&metadata));
    let secret = Some(MetadataSecret::new([9; MetadataSecret::LEN]));
    let secretive = Metadata { secret, ..metadata.clone() };
    let with_secret = secretive.encode().unwrap();
    assert_eq!(with_secret.len() - blob.len(), 40, "the secret stands there once");
    assert_eq!(Metadata::decode(&with_secret), Ok(secretive));

    let mut more = blob;
    let count_at = bare - 8;
    more[count_at..count_at + 4].copy_from_slice(&(MAX_REGIONS as u32 + 1).to_le_bytes());
    let end = more.len() - 4;
    let one = more[end - 46..end].to_vec();
    more.splice(end..end, one);
    let error = Metadata::decode(&mended(Format::Blob, more)).unwrap_err();
    let (value, limit) = (MAX_REGIONS as u64 + 1, MAX_REGIONS as u64);
    assert_eq!(error, WireError::Limit { what: "regions", value, limit });

    metadata.regions.push(region);
    assert!(matches!(metadata.encode(), Err(WireError::Limit { .. })));
}

#[test]
fn a_region_that_is_empty_or_wraps_around_is_refused() {
    for (base, len) in [(1 << 20, 0), (u64::MAX, 1), (2, u64::MAX - 1)] {
        let mut metadata = samples::metadata();
        (metadata.regions[0].base, metadata.regions[0].len) = (base, len);
        let blob = metadata.encode().unwrap();
        assert!(Metadata::decode(&blob).is_err(), "{base:#x} + {len:#x}");
    }
}
