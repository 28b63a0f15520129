//! The bounds that every format relies on.

use super::{Reader, Writer};
use crate::wire::WireError;

fn written(limit: usize, write: impl FnOnce(&mut Writer<'_>)) -> Result<Vec<u8>, WireError> {
    let mut out = b"kept".to_vec();
    let mut writer = Writer::new("test", &mut out, limit);
    write(&mut writer);
    let result = writer.finish();
    assert!(out.starts_with(b"kept"));
    result.map(|()| out.split_off(4)).inspect_err(|_| assert!(out.len() <= 4))
}

#[test]
fn fields_are_little_endian() {
    let bytes = written(100, |w| {
        w.u8(1);
        w.u16(0x0203);
        w.u32(0x0405_0607);
        w.u64(0x0809_0a0b_0c0d_0e0f);
        w.column("column", &[0x1011_1213u32], 1, |value| *value);
    });
    let expected = [
        1, 3, 2, 7, 6, 5, 4, 0xf, 0xe, 0xd, 0xc, 0xb, 0xa, 9, 8, 1, 0, 0, 0, 0x13, 0x12, 0x11, 0x10,
    ];
    assert_eq!(bytes.as_deref(), Ok(&expected[..]));
}

#[test]
fn a_count_beyond_the_bytes_that_are_left_is_refused_before_any_entry_is_read() {
    for (count, entry_len, limit) in
        [(u32::MAX, 1, usize::MAX), (u32::MAX, usize::MAX, usize::MAX), (3, 4, 100), (9, 1, 8)]
    {
        let bytes = [&count.to_le_bytes()[..], &[0; 11]].concat();
        let mut entries = 0;
        let list = Reader::new("test", &bytes).list("list", entry_len, limit, |_| {
            entries += 1;
            Ok(())
        });
        assert!(list.is_err(), "{count} entries of {entry_len} bytes passed");
        assert_eq!(entries, 0);
        assert!(Reader::new("test", &bytes).column("column", 2, |value| value).is_err());
    }
}

#[test]
fn a_list_holds_no_more_memory_than_its_entries_need() {
    let bytes = [&1000u32.to_le_bytes()[..], &[7; 4000]].concat();
    let column = Reader::new("test", &bytes).column("column", 1000, |value| value).unwrap();
    assert_eq!((column.len(), column.capacity()), (1000, 1000));
    let list = Reader::new("test", &bytes).list("list", 4, 1000, |r| r.u32("entry")).unwrap();
    assert_eq!((list.len(), list.capacity()), (1000, 1000));
    assert_eq!(list, column);
}

#[test]
fn a_part_ends_where_it_says_whatever_is_read_in_it() {
    let bytes = [&2u32.to_le_bytes()[..], &[1, 2, 3, 4]].concat();
    let mut reader = Reader::new("test", &bytes);
    let mut part = reader.part("part").unwrap();
    assert_eq!(part.u32("field"), Err(WireError::Truncated { what: "field", need: 4, have: 2 }));
    assert_eq!(part.u16("field"), Ok(0x0201));
    assert_eq!(reader.u16("behind"), Ok(0x0403));
    assert_eq!(reader.finish(), Ok(()));

    let long = [&5u32.to_le_bytes()[..], &[1, 2, 3, 4]].concat();
    assert!(Reader::new("test", &long).part("part").is_err());
}

#[test]
fn a_written_part_is_behind_its_own_length() {
    let bytes = written(100, |w| {
        w.u8(9);
        w.part(|w| w.bytes(b"abc"));
        w.u8(9);
    });
    assert_eq!(bytes.as_deref(), Ok(&[9, 3, 0, 0, 0, b'a', b'b', b'c', 9][..]));
}

#[test]
fn what_is_left_over_is_an_error() {
    let mut reader = Reader::new("test", &[1, 2, 3]);
    reader.u8("field").unwrap();
    assert_eq!(reader.finish(), Err(WireError::Trailing { what: "test", left: 2 }));
}

#[test]
fn text_that_is_not_utf8_and_flags_and_reserved_bytes_with_other_values_are_refused() {
    assert_eq!(
        Reader::new("test", &[1, 0xff]).short_text("text"),
        Err(WireError::Utf8 { what: "text" })
    );
    assert_eq!(
        Reader::new("test", &[2]).flag("flag"),
        Err(WireError::Value { what: "flag", value: 2 })
    );
    assert_eq!(
        Reader::new("test", &[0, 5]).reserved::<2>("reserved"),
        Err(WireError::Value { what: "reserved", value: 5 })
    );
}

#[test]
fn a_writer_stops_at_its_bound_and_takes_back_what_it_wrote() {
    assert_eq!(written(3, |w| w.bytes(b"abc")).as_deref(), Ok(&b"abc"[..]));
    let over = WireError::Limit { what: "test", value: 4, limit: 3 };
    assert_eq!(written(3, |w| w.bytes(b"abcd")), Err(over));
    assert_eq!(written(3, |w| w.u32(1)), Err(over));
    let first = written(100, |w| {
        w.blob("blob", b"abc", 2);
        w.fail(over);
        w.u64(1);
    });
    assert_eq!(first, Err(WireError::Limit { what: "blob", value: 3, limit: 2 }));
}
