//! Appending fields to a vector, within a bound.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::Wire;
use crate::wire::WireError;

/// Appends fields to a vector, at most `limit` bytes together. The first failure is kept, and
/// nothing is written after it; [`Writer::finish`] tells.
pub(crate) struct Writer<'a> {
    what: &'static str,
    out: &'a mut Vec<u8>,
    start: usize,
    limit: usize,
    error: Option<WireError>,
}

impl<'a> Writer<'a> {
    /// A writer of one `what` behind what `out` holds already.
    pub(crate) fn new(what: &'static str, out: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = out.len();
        Self { what, out, start, limit, error: None }
    }

    /// Appends a field.
    pub(crate) fn put<T: Wire>(&mut self, value: &T) {
        value.write(self);
    }

    /// Appends a byte.
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends a u16.
    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a u32.
    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a u64.
    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if let Some(()) = self.room(bytes.len()) {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Appends text behind its length in a byte.
    pub(crate) fn short_text(&mut self, what: &'static str, text: &str) {
        match u8::try_from(text.len()) {
            Ok(len) => {
                self.u8(len);
                self.bytes(text.as_bytes());
            }
            Err(_) => self.fail(limit(what, text.len(), u8::MAX.into())),
        }
    }

    /// Appends bytes behind their length in a u32.
    pub(crate) fn blob(&mut self, what: &'static str, bytes: &[u8], limit: usize) {
        self.count(what, bytes.len(), limit);
        self.bytes(bytes);
    }

    /// Appends entries behind their number in a u32.
    pub(crate) fn list<T>(
        &mut self,
        what: &'static str,
        list: &[T],
        limit: usize,
        mut entry: impl FnMut(&mut Self, &T),
    ) {
        self.count(what, list.len(), limit);
        for value in list {
            if self.error.is_some() {
                return;
            }
            entry(self, value);
        }
    }

    /// Appends a column of u32 behind its length in a u32.
    pub(crate) fn column<T>(
        &mut self,
        what: &'static str,
        column: &[T],
        limit: usize,
        entry: impl Fn(&T) -> u32,
    ) {
        self.count(what, column.len(), limit);
        let bytes = column.len().saturating_mul(size_of::<U32>());
        let Some(()) = self.room(bytes) else { return };
        let at = self.out.len();
        self.out.resize(at + bytes, 0);
        // The length is a multiple of four and U32 needs no alignment: always Ok.
        if let Ok(raw) = <[U32]>::mut_from_bytes(&mut self.out[at..]) {
            raw.iter_mut().zip(column).for_each(|(raw, value)| raw.set(entry(value)));
        }
    }

    /// Appends what `part` writes behind its length in a u32.
    pub(crate) fn part(&mut self, part: impl FnOnce(&mut Self)) {
        let at = self.out.len();
        self.u32(0);
        part(self);
        if self.error.is_some() {
            return;
        }
        let begin = at + size_of::<u32>();
        // The writer's limit lies far below 4 GiB.
        let len = (self.out.len() - begin) as u32;
        self.out[at..begin].copy_from_slice(&len.to_le_bytes());
    }

    /// Appends an optional extension, whose number is higher than those before it (PROTOCOL 2.2).
    pub(crate) fn extension(&mut self, number: u16, value: impl FnOnce(&mut Self)) {
        self.u16(number);
        self.u16(0);
        self.part(value);
    }

    /// Appends a list's length, if it is within bounds.
    pub(crate) fn count(&mut self, what: &'static str, len: usize, bound: usize) {
        match u32::try_from(len).ok().filter(|_| len <= bound) {
            Some(count) => self.u32(count),
            None => self.fail(limit(what, len, bound)),
        }
    }

    /// Keeps the first failure.
    pub(crate) fn fail(&mut self, error: WireError) {
        self.error.get_or_insert(error);
    }

    /// Makes room for `len` more bytes.
    fn room(&mut self, len: usize) -> Option<()> {
        let total = (self.out.len() - self.start).saturating_add(len);
        if total > self.limit {
            self.fail(limit(self.what, total, self.limit));
        } else if self.out.try_reserve(len).is_err() {
            self.fail(WireError::Memory { what: self.what, bytes: len });
        }
        self.error.is_none().then_some(())
    }

    /// Ends the structure.
    ///
    /// # Errors
    /// The first failure; the vector is as it was before then.
    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.error {
            Some(error) => {
                self.out.truncate(self.start);
                Err(error)
            }
            None => Ok(()),
        }
    }
}

fn limit(what: &'static str, value: usize, limit: usize) -> WireError {
    WireError::Limit { what, value: value as u64, limit: limit as u64 }
}
