//! Taking fields off the front of bytes from outside.
//!
//! A [`Reader`] never panics and never looks beyond its bytes; a part that says its own length is
//! read through [`Reader::part`], which ends where the part does. No allocation is made for a
//! count before the bytes that it announces are known to be there.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::{EXTENSION_HEADER_LEN, REQUIRED, Wire};
use crate::wire::WireError;

/// Takes fields off the front of a slice.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`, which should be a `what`.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// The next field, by its type.
    pub(crate) fn get<T: Wire>(&mut self) -> Result<T, WireError> {
        T::read(self)
    }

    /// The next `len` bytes.
    pub(crate) fn bytes(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], WireError> {
        let have = self.rest.len();
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated {
            what,
            need: len,
            have,
        })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], WireError> {
        let have = self.rest.len();
        let (head, rest) =
            self.rest.split_first_chunk().ok_or(WireError::Truncated { what, need: N, have })?;
        self.rest = rest;
        Ok(*head)
    }

    /// The last `N` bytes, which the fields then do not reach.
    pub(crate) fn tail<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], WireError> {
        let have = self.rest.len();
        let (rest, tail) =
            self.rest.split_last_chunk().ok_or(WireError::Truncated { what, need: N, have })?;
        self.rest = rest;
        Ok(*tail)
    }

    /// The next byte.
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        self.array(what).map(u8::from_le_bytes)
    }

    /// The next u16.
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, WireError> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// The next u32.
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// The next u64.
    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Value { what, value: other.into() }),
        }
    }

    /// `N` bytes that must be zero, so that a later version can give them a meaning.
    pub(crate) fn reserved<const N: usize>(&mut self, what: &'static str) -> Result<(), WireError> {
        match self.array::<N>(what)?.into_iter().find(|byte| *byte != 0) {
            Some(value) => Err(WireError::Value { what, value: value.into() }),
            None => Ok(()),
        }
    }

    /// Text behind its length in a byte.
    pub(crate) fn short_text(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        let len = self.u8(what)?;
        let bytes = self.bytes(what, len.into())?;
        std::str::from_utf8(bytes).map_err(|_| WireError::Utf8 { what })
    }

    /// Bytes behind their length in a u32, at most `limit`.
    pub(crate) fn blob(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], WireError> {
        let len = self.count(what, 1, limit)?;
        self.bytes(what, len)
    }

    /// A reader of the next `len` bytes; nothing read through it runs past them.
    pub(crate) fn sub(&mut self, what: &'static str, len: usize) -> Result<Reader<'a>, WireError> {
        self.bytes(what, len).map(|bytes| Reader::new(what, bytes))
    }

    /// A reader of a part behind its length in a u32.
    pub(crate) fn part(&mut self, what: &'static str) -> Result<Reader<'a>, WireError> {
        let len = self.count(what, 1, usize::MAX)?;
        self.sub(what, len)
    }

    /// Entries behind their number in a u32, at most `limit` of `entry_len` bytes each.
    pub(crate) fn list<T>(
        &mut self,
        what: &'static str,
        entry_len: usize,
        limit: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.count(what, entry_len, limit)?;
        let mut list = reserve(what, count)?;
        for _ in 0..count {
            list.push(entry(self)?);
        }
        Ok(list)
    }

    /// A column of u32 behind its length in a u32, at most `limit`.
    pub(crate) fn column<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        entry: impl Fn(u32) -> T,
    ) -> Result<Vec<T>, WireError> {
        let count = self.count(what, size_of::<U32>(), limit)?;
        let bytes = self.bytes(what, count * size_of::<U32>())?;
        let raw = <[U32]>::ref_from_bytes(bytes).map_err(|_| WireError::Truncated {
            what,
            need: count,
            have: bytes.len(),
        })?;
        let mut column = reserve(what, count)?;
        column.extend(raw.iter().map(|value| entry(value.get())));
        Ok(column)
    }

    /// A number of entries that fits both `limit` and the bytes that are left.
    fn count(
        &mut self,
        what: &'static str,
        entry_len: usize,
        limit: usize,
    ) -> Result<usize, WireError> {
        let value = self.u32(what)?;
        let over = WireError::Limit { what, value: value.into(), limit: limit as u64 };
        let count = usize::try_from(value).ok().filter(|count| *count <= limit).ok_or(over)?;
        let need = count.saturating_mul(entry_len);
        if need > self.rest.len() {
            return Err(WireError::Truncated { what, need, have: self.rest.len() });
        }
        Ok(count)
    }

    /// Passes over all that is left.
    pub(crate) fn skip(&mut self) {
        self.rest = &[];
    }

    /// Ends a structure that has no extensions: every byte must have been read.
    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing { what: self.what, left }),
        }
    }

    /// Ends a structure whose rest is extensions, of which this version knows none.
    pub(crate) fn finish_extended(self) -> Result<(), WireError> {
        self.finish_with(|_, _| Ok(false))
    }

    /// Ends a structure whose rest is extensions. `known` reads the value of one by its number, or
    /// says that it does not know it: optional ones are skipped then, a required one is an error
    /// (PROTOCOL 2.2).
    pub(crate) fn finish_with(
        mut self,
        mut known: impl FnMut(u16, &mut Reader<'a>) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let what = self.what;
        let mut past = 1;
        while !self.rest.is_empty() {
            let mut header = self.sub(what, EXTENSION_HEADER_LEN)?;
            let tag = header.u16(what)?;
            header.reserved::<2>(what)?;
            let len = header.u32(what)?;
            header.finish()?;

            let number = tag & !REQUIRED;
            if number < past {
                return Err(WireError::Order { what, tag });
            }
            past = number + 1;
            let need = usize::try_from(len).unwrap_or(usize::MAX);
            let mut value = self.sub(what, need)?;
            if known(number, &mut value)? {
                value.finish()?;
            } else if tag & REQUIRED != 0 {
                return Err(WireError::Required { what, tag });
            }
        }
        Ok(())
    }
}

/// An empty vector with room for `count` entries.
fn reserve<T>(what: &'static str, count: usize) -> Result<Vec<T>, WireError> {
    let mut list = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    list.try_reserve_exact(count).map_err(|_| WireError::Memory { what, bytes })?;
    Ok(list)
}
