//! The rules of PROTOCOL 5.1 and 5.2, one by one.

use super::*;

const RUNS: FrameRuns = FrameRuns { first: 5, count: 2, total: 9 };

fn write() -> FrameHeader {
    let expiry = Time::from_nanos(77);
    FrameHeader {
        flags: FrameFlags::CHECKSUM | FrameFlags::DIGEST,
        table_crc: 1,
        payload_crc: 2,
        digest: 3,
        ..FrameHeader::write(TransferId(3), Some(GrantId(4)), expiry, RUNS, 300)
    }
}

fn request() -> FrameHeader {
    FrameHeader::read_request(TransferId(3), Time::from_nanos(77), RUNS)
}

fn table(lens: &[u32]) -> Vec<RawSpan> {
    lens.iter().map(|len| WireSpan { slot: Slot(1), len: *len, offset: 8 }.into()).collect()
}

#[test]
fn a_header_has_its_fields_where_the_protocol_says() {
    let bytes = write().encode();
    let expected: &[(usize, &[u8])] = &[
        (0, b"KVXF"),
        (4, &[1, 3, 0, 0]),
        (8, &300u32.to_le_bytes()),
        (12, &2u32.to_le_bytes()),
        (16, &3u64.to_le_bytes()),
        (24, &4u64.to_le_bytes()),
        (32, &77u64.to_le_bytes()),
        (40, &5u32.to_le_bytes()),
        (44, &9u32.to_le_bytes()),
        (48, &1u32.to_le_bytes()),
        (52, &2u32.to_le_bytes()),
        (56, &3u64.to_le_bytes()),
    ];
    for (at, field) in expected {
        assert_eq!(&bytes[*at..at + field.len()], *field, "at {at}");
    }
    let ack = FrameHeader::ack(6, 5).encode();
    assert_eq!((ack[24], ack[32]), (6, 5));
}

#[test]
fn a_table_entry_has_its_fields_where_the_protocol_says() {
    use zerocopy::IntoBytes;

    let raw = RawSpan::from(WireSpan { slot: Slot(0x0102), len: 0x0304, offset: 0x0506_0708 });
    assert_eq!(raw.as_bytes(), [2, 1, 0, 0, 4, 3, 0, 0, 8, 7, 6, 5, 0, 0, 0, 0]);
    assert_eq!(RawSpan::from(raw.get()), raw);
}

/// Each case breaks one rule of a header that is good without it.
#[test]
fn a_header_that_breaks_any_rule_is_refused() {
    let read_data = FrameHeader::read_data(&request(), 300);
    let summed = |header| FrameHeader { flags: FrameFlags::CHECKSUM, ..header };
    let cases: &[(&str, FrameHeader, usize, &[u8])] = &[
        ("magic", write(), 3, b"G"),
        ("kind 0", write(), 4, &[0]),
        ("kind 5", write(), 4, &[5]),
        ("an unknown flag", write(), 5, &[4]),
        ("the reserved field", write(), 7, &[1]),
        ("no payload in a WRITE", write(), 8, &[0; 4]),
        ("too much payload", write(), 8, &(MAX_FRAME_PAYLOAD + 1).to_le_bytes()),
        ("no runs", write(), 12, &[0; 4]),
        ("too many runs", write_of(1024), 12, &1025u32.to_le_bytes()),
        ("no transfer", write(), 16, &[0; 8]),
        ("runs beyond the last", write(), 40, &8u32.to_le_bytes()),
        ("runs that wrap around", write(), 40, &u32::MAX.to_le_bytes()),
        ("too many runs in all", write(), 44, &((1 << 24) + 1u32).to_le_bytes()),
        ("a table checksum without flag", request(), 48, &[1]),
        ("a payload checksum without flag", read_data, 52, &[1]),
        ("a digest without flag", read_data, 56, &[1]),
        ("payload in a request", request(), 8, &[1]),
        ("a digest in a request", request(), 5, &[2]),
        ("a payload checksum in a request", summed(request()), 52, &[1]),
        ("a grant in a request", request(), 24, &[1]),
        ("no payload in READ data", read_data, 8, &[0; 4]),
        ("a grant in READ data", read_data, 24, &[1]),
        ("an expiry in READ data", read_data, 32, &[1]),
        ("a table checksum in READ data", summed(read_data), 48, &[1]),
        ("flags in an ACK", FrameHeader::ack(3, 2), 5, &[1]),
        ("payload in an ACK", FrameHeader::ack(3, 2), 8, &[1]),
        ("runs in an ACK", FrameHeader::ack(3, 2), 12, &[1]),
        ("a transfer in an ACK", FrameHeader::ack(3, 2), 16, &[1]),
        ("more refused than processed", FrameHeader::ack(3, 2), 32, &[4]),
        ("a first run in an ACK", FrameHeader::ack(3, 2), 40, &[1]),
        ("total runs in an ACK", FrameHeader::ack(3, 2), 44, &[1]),
        ("a table checksum in an ACK", FrameHeader::ack(3, 2), 48, &[1]),
        ("a payload checksum in an ACK", FrameHeader::ack(3, 2), 52, &[1]),
        ("a digest in an ACK", FrameHeader::ack(3, 2), 56, &[1]),
    ];
    for (rule, good, at, bytes) in cases {
        let mut header = good.encode();
        assert_eq!(FrameHeader::decode(&header), Ok(*good), "{rule}: the good header");
        header[*at..at + bytes.len()].copy_from_slice(bytes);
        assert!(FrameHeader::decode(&header).is_err(), "{rule} passed");
    }
}

fn write_of(count: u32) -> FrameHeader {
    let runs = FrameRuns { first: 0, count, total: 2000 };
    FrameHeader::write(TransferId(1), None, Time::ZERO, runs, count)
}

#[test]
fn only_writes_and_requests_have_a_table_and_it_has_an_entry_a_run() {
    assert_eq!((write().table_entries(), write().table_len()), (2, 32));
    assert_eq!(request().table_entries(), 2);
    assert_eq!(FrameHeader::read_data(&request(), 300).table_entries(), 0);
    assert_eq!(FrameHeader::ack(1, 0).table_entries(), 0);
}

#[test]
fn a_table_adds_up_to_the_payload_of_a_write_and_fits_the_answer_of_a_request() {
    let mut out = vec![WireSpan { slot: Slot(9), len: 9, offset: 9 }];
    decode_table(&write(), &table(&[100, 200]), &mut out).unwrap();
    assert_eq!(out.iter().map(|span| span.len).collect::<Vec<_>>(), [100, 200]);

    let largest = table(&[MAX_FRAME_PAYLOAD - 1, 1]);
    decode_table(&request(), &largest, &mut out).unwrap();
    assert_eq!(out.len(), 2);

    for (header, lens) in [
        (write(), &[100, 199][..]),
        (write(), &[100, 201]),
        (write(), &[300, 0]),
        (write(), &[300]),
        (write(), &[100, 100, 100]),
        (write(), &[u32::MAX, 301]),
        (request(), &[MAX_FRAME_PAYLOAD, 1]),
        (request(), &[u32::MAX, u32::MAX]),
        (request(), &[0, 1]),
        (FrameHeader::ack(1, 0), &[1]),
    ] {
        assert!(decode_table(&header, &table(lens), &mut out).is_err(), "{lens:?} passed");
    }
}

#[test]
fn a_table_checksum_covers_every_byte() {
    use zerocopy::IntoBytes;

    let mut entries = table(&[100, 200]);
    let sum = table_crc(&entries);
    for at in 0..entries.as_bytes().len() {
        entries.as_mut_bytes()[at] ^= 1;
        assert_ne!(table_crc(&entries), sum, "byte {at} is not covered");
        entries.as_mut_bytes()[at] ^= 1;
    }
}

#[test]
fn every_byte_of_the_magic_counts() {
    for place in 0..4 {
        let mut bytes = write().encode();
        bytes[place] ^= 1;
        assert!(matches!(FrameHeader::decode(&bytes), Err(WireError::Magic { what: "frame" })));
    }
}
