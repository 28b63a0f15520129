//! Lists of spans as columns.

use std::collections::TryReserveError;

use crate::error::Invalid;
use crate::plan::order::no_memory;

/// A run of bytes in a region that is named by its index in a list given beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Index into the list of regions.
    pub region: u32,
    /// Offset in the region in bytes.
    pub offset: u64,
    /// Length in bytes; may be 0.
    pub len: u64,
}

impl Span {
    /// Where it begins: region, then offset.
    #[inline]
    pub(super) fn place(self) -> (u32, u64) {
        (self.region, self.offset)
    }
}

/// A list of spans, 24 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    // Not in columns: plans pick spans here and there, and so touch one cache line for each.
    spans: Vec<Span>,
    /// No span begins before the one before it: to order some, their indices need only be ordered.
    ascending: bool,
}

impl Spans {
    /// An empty list.
    pub const fn new() -> Self {
        Self { spans: Vec::new(), ascending: true }
    }

    /// The list whose span `i` is made of the `i`th entries.
    ///
    /// # Errors
    /// The columns differ in length; no memory for the list.
    pub fn from_columns(region: &[u32], offset: &[u64], len: &[u64]) -> Result<Self, Invalid> {
        super::same("regions against offsets", region.len() as u64, offset.len() as u64)?;
        super::same("offsets against lengths", offset.len() as u64, len.len() as u64)?;
        let mut spans = Self::new();
        spans.try_reserve(region.len()).map_err(|_| no_memory(region.len()))?;
        let rest = offset.iter().zip(len);
        let columns = region.iter().zip(rest);
        spans.extend(columns.map(|(&region, (&offset, &len))| Span { region, offset, len }));
        Ok(spans)
    }

    /// Makes room for `additional` more spans, so that pushing them allocates nothing: to be called
    /// first where their number is someone else's to choose.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn try_reserve(&mut self, additional: usize) -> Result<(), TryReserveError> {
        self.spans.try_reserve(additional)
    }

    /// Appends a span.
    #[inline]
    pub fn push(&mut self, span: Span) {
        self.ascending &= self.spans.last().is_none_or(|last| last.place() <= span.place());
        self.spans.push(span);
    }

    /// The number of spans.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Span `index`.
    ///
    /// # Panics
    /// `index` is not below [`Spans::len`].
    #[inline]
    pub fn get(&self, index: usize) -> Span {
        self.spans[index]
    }

    /// The spans in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Span> + '_ {
        self.spans.iter().copied()
    }

    /// Whether no span begins before the one before it.
    #[inline]
    pub(super) fn is_ascending(&self) -> bool {
        self.ascending
    }

    /// Whether there is a span of every index that a caller chose; `what` names the list.
    ///
    /// # Errors
    /// The first one there is not.
    pub(super) fn have(&self, what: &'static str, indices: &[u32]) -> Result<(), Invalid> {
        let beyond = |index: u32| index as usize >= self.len();
        // Nearly always none is: the highest is found faster than the first.
        if !indices.iter().copied().max().is_some_and(beyond) {
            return Ok(());
        }
        let first = indices.iter().copied().find(|index| beyond(*index)).unwrap_or_default();
        Err(Invalid::Index { what, index: u64::from(first), len: self.len() as u64 })
    }
}

impl Default for Spans {
    fn default() -> Self {
        Self::new()
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
