//! Lists of spans that the benchmarks plan. Nothing is planned or timed here.

use kvx_core::plan::{Span, Spans};
use kvx_core::testing::Random;

/// Two lists of spans that pair up.
pub(crate) struct Pairs {
    pub(crate) local: Spans,
    pub(crate) remote: Spans,
}

/// `count` spans of `len` bytes one after the other on both sides: they merge into runs of the
/// longest length allowed.
pub(crate) fn sequential(count: u64, len: u64) -> Pairs {
    let list = || (0..count).map(|i| Span { region: 0, offset: i * len, len }).collect();
    Pairs { local: list(), remote: list() }
}

/// `count` spans of `len` bytes in random order on both sides, a gap after each: nothing merges and
/// everything is sorted.
pub(crate) fn scattered(count: u64, len: u64) -> Pairs {
    let mut random = Random::new(1);
    let mut list = || {
        let places = random.order(count as usize);
        let span = |place: u32| Span { region: 0, offset: u64::from(place) * len * 2, len };
        places.into_iter().map(span).collect()
    };
    Pairs { local: list(), remote: list() }
}
