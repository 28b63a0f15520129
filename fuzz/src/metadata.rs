//! Metadata blobs (PROTOCOL 9).

use kvx_core::wire::metadata::Metadata;

/// Everything is a blob: as it stands, and with the checksum put right.
pub fn run(bytes: &[u8]) {
    check(bytes);
    let sum = crc32c::crc32c(bytes);
    check(&[bytes, &sum.to_le_bytes()].concat());
}

fn check(blob: &[u8]) {
    let Ok(metadata) = Metadata::decode(blob) else { return };
    for region in &metadata.regions {
        assert!(region.len > 0 && region.base.checked_add(region.len).is_some(), "{region:?}");
    }
    let again = metadata.encode().expect("what was read can be written");
    // Extensions that are not known here are not written again.
    assert!(again.len() <= blob.len());
    assert_eq!(Metadata::decode(&again), Ok(metadata));
}
