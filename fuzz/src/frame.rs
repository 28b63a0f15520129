//! Frame headers and tables (PROTOCOL 5.1 and 5.2).

use kvx_core::wire::{
    FRAME_HEADER_LEN, FRAME_SPAN_LEN, FrameHeader, FrameKind, MAX_FRAME_PAYLOAD, RawSpan, WireSpan,
    decode_table,
};
use zerocopy::IntoBytes;

/// The first 64 bytes are a header, the rest is a table, said again and again until it is as long
/// as the header wants it.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>() else { return };
    let Ok(header) = FrameHeader::decode(first) else { return };
    // Every bit of a header has a meaning or must be zero.
    assert_eq!(&header.encode(), first);
    assert!(u64::from(header.first_run) + u64::from(header.runs) <= u64::from(header.total_runs));
    assert!(header.payload_len <= MAX_FRAME_PAYLOAD);
    let raw: Vec<u8> = rest.iter().copied().cycle().take(header.table_len()).collect();
    check_table(&header, &raw);
    // That a payload is as long as its table says, no mutation hits by chance.
    let sum = lengths(&raw).sum::<u64>();
    if header.kind == FrameKind::Write && (1..=u64::from(MAX_FRAME_PAYLOAD)).contains(&sum) {
        check_table(&FrameHeader { payload_len: sum as u32, ..header }, &raw);
    }
}

fn check_table(header: &FrameHeader, raw: &[u8]) {
    let entries = raw.len() / FRAME_SPAN_LEN;
    let mut table = vec![RawSpan::default(); entries];
    table.as_mut_bytes().copy_from_slice(&raw[..entries * FRAME_SPAN_LEN]);
    let mut spans = Vec::new();
    let decoded = decode_table(header, &table, &mut spans);

    let whole = table.len() == header.table_entries();
    let sum = lengths(raw).sum::<u64>();
    let sound = whole
        && lengths(raw).all(|len| len > 0)
        && match header.kind {
            FrameKind::Write => sum == u64::from(header.payload_len),
            FrameKind::ReadRequest => sum <= u64::from(MAX_FRAME_PAYLOAD),
            FrameKind::ReadData | FrameKind::Ack => true,
        };
    assert_eq!(decoded.is_ok(), sound, "{decoded:?}");
    if sound {
        let again: Vec<RawSpan> = spans.iter().copied().map(RawSpan::from).collect();
        assert_eq!(again.as_bytes(), table.as_bytes());
        let of = |span: &WireSpan| u64::from(span.len);
        assert!(spans.iter().map(of).eq(lengths(raw)));
    }
}

/// The lengths in a table, read the plain way.
fn lengths(raw: &[u8]) -> impl Iterator<Item = u64> + '_ {
    raw.chunks_exact(FRAME_SPAN_LEN)
        .filter_map(|entry| entry[4..8].first_chunk())
        .map(|len| u64::from(u32::from_le_bytes(*len)))
}
