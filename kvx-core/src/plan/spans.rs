//! Lists of spans as columns.

use std::collections::TryReserveError;

use crate::error::Invalid;

/// A run of bytes in a region that is named by its index in a list given beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index into the list of regions.
    pub region: u32,
    /// Offset in the region in bytes.
    pub offset: u64,
    /// Length in bytes; may be 0.
    pub len: u64,
}

/// A list of spans: 20 bytes each, in columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    // Of equal length.
    region: Vec<u32>,
    offset: Vec<u64>,
    len: Vec<u64>,
}

impl Spans {
    /// An empty list.
    pub const fn new() -> Self {
        Self { region: Vec::new(), offset: Vec::new(), len: Vec::new() }
    }

    /// The list whose span `i` is made of the `i`th entries.
    ///
    /// # Errors
    /// The columns differ in length.
    pub fn from_columns(
        region: Vec<u32>,
        offset: Vec<u64>,
        len: Vec<u64>,
    ) -> Result<Self, Invalid> {
        super::same("regions against offsets", region.len() as u64, offset.len() as u64)?;
        super::same("offsets against lengths", offset.len() as u64, len.len() as u64)?;
        Ok(Self { region, offset, len })
    }

    /// Makes room for `additional` more spans, so that pushing them allocates nothing: to be called
    /// first where their number is someone else's to choose.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn try_reserve(&mut self, additional: usize) -> Result<(), TryReserveError> {
        self.region.try_reserve(additional)?;
        self.offset.try_reserve(additional)?;
        self.len.try_reserve(additional)
    }

    /// Appends a span.
    #[inline]
    pub fn push(&mut self, span: Span) {
        self.region.push(span.region);
        self.offset.push(span.offset);
        self.len.push(span.len);
    }

    /// The number of spans.
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// Span `index`.
    ///
    /// # Panics
    /// `index` is not below [`Spans::len`].
    #[inline]
    pub fn get(&self, index: usize) -> Span {
        Span { region: self.region[index], offset: self.offset[index], len: self.len[index] }
    }

    /// The spans in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Span> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Span `index`, which a caller chose.
    #[inline]
    pub(super) fn chosen(&self, what: &'static str, index: u32) -> Result<Span, Invalid> {
        if (index as usize) < self.len() {
            return Ok(self.get(index as usize));
        }
        Err(Invalid::Index { what, index: u64::from(index), len: self.len() as u64 })
    }
}

impl Extend<Span> for Spans {
    fn extend<I: IntoIterator<Item = Span>>(&mut self, spans: I) {
        spans.into_iter().for_each(|span| self.push(span));
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut list = Self::new();
        list.extend(spans);
        list
    }
}
