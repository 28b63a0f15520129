//! Messages in rings, and what is said on the socket of a lane until it is set up (PROTOCOL 11).

use std::io::Read;
use std::os::unix::net::UnixStream;

use kvx_core::proto::LaneKey;
use kvx_core::wire::{FRAME_HEADER_LEN, FRAME_SPAN_LEN};
use kvx_shm::testing::{SettingUp, parse};

/// Bytes of a greeting, and where it names its process.
const GREETING: usize = 72;
const PID: std::ops::Range<usize> = 40..44;

/// The first byte chooses which of the two the rest is.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((first, rest)) if first.is_multiple_of(2) => message(rest),
        Some((_, rest)) => conversation(rest),
        None => {}
    }
}

/// What parses adds up, and is what stands there.
fn message(bytes: &[u8]) {
    let (words, _) = bytes.as_chunks();
    let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let Ok((header, table, sources)) = parse(&words) else { return };
    let payload = if header.kind.has_payload() { u64::from(header.payload_len) } else { 0 };
    assert_eq!(sources.iter().map(|source| u128::from(source.len)).sum::<u128>(), payload.into());
    assert!(sources.iter().all(|source| source.len > 0));
    let head = 8 + FRAME_HEADER_LEN;
    assert_eq!(&header.encode()[..], &bytes[8..head]);
    let sources_at = head + table.len() * FRAME_SPAN_LEN;
    assert_eq!(sources_at + 16 * sources.len(), 8 * words.len());
    for (source, place) in sources.iter().zip(words[sources_at / 8..].chunks_exact(2)) {
        // Above the length stands which pool it is in.
        assert_eq!([source.address, source.len], [place[0], place[1] & u64::from(u32::MAX)]);
    }
}

/// Nobody who does not know the lane's key is let in. A greeting that would be refused at once for
/// its place is mended, so that more than that is seen; and it names this very process, for a fuzzer
/// must not reach into others.
fn conversation(bytes: &[u8]) {
    let Ok((near, mut far)) = UnixStream::pair() else { return };
    let Ok(mut lane) =
        SettingUp::new(near.into(), LaneKey::new([7; 32]), bytes.len().is_multiple_of(2))
    else {
        return;
    };
    let mut own = [0; GREETING];
    far.read_exact(&mut own).expect("it greets");
    let mut said = bytes.to_vec();
    if let Some((flags, rest)) = said.split_first_mut()
        && let Some(greeting) = rest.first_chunk_mut::<GREETING>()
    {
        // Magic, place, ring, answer, challenge.
        let fields = [0..8, 8..40, 44..48, 48..56, 56..72];
        for (bit, field) in fields.into_iter().enumerate() {
            if *flags & 1 << bit == 0 {
                greeting[field.clone()].copy_from_slice(&own[field]);
            }
        }
        greeting[PID].copy_from_slice(&own[PID]);
    }
    let rest = said.get(1..).unwrap_or_default();
    for byte in rest {
        if lane.hear(*byte).is_err() {
            break;
        }
    }
    assert!(!lane.is_done(), "somebody without the key was let in");
}
