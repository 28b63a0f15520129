//! Ranges on the command line, and the sizes that they stand for.

use std::num::NonZeroU32;
use std::str::FromStr;

use super::shape::MAX_BLOCKS;

/// Sizes of a block in bytes, such as `512..16MiB`; ascending, none is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockSizes(pub(super) Vec<u64>);

/// Numbers of blocks in a transfer, such as `1..64`; ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchSizes(pub(super) Vec<NonZeroU32>);

/// Bytes of a block at most.
const MAX_BLOCK_BYTES: u64 = 1 << 40;

impl FromStr for BlockSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected a size such as 16KiB, or a range such as 512..16MiB, of 1 B to 1 TiB"
                .to_owned()
        };
        let size = |text: &str| bytes(text).filter(|size| *size <= MAX_BLOCK_BYTES);
        doublings(text, size).map(Self).ok_or_else(expected)
    }
}

impl FromStr for BatchSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!("expected a number such as 64, or a range such as 1..64, of 1 to {MAX_BLOCKS}")
        };
        let batch = |text: &str| text.parse().ok().filter(|batch| *batch <= MAX_BLOCKS);
        let batches = doublings(text, batch).ok_or_else(expected)?.into_iter();
        let batches = batches.map(|batch| u32::try_from(batch).ok().and_then(NonZeroU32::new));
        batches.collect::<Option<_>>().map(Self).ok_or_else(expected)
    }
}

/// `a`, or for `a..b` each doubling of `a` up to and with `b`. Neither is 0.
fn doublings(text: &str, parse: impl Fn(&str) -> Option<u64>) -> Option<Vec<u64>> {
    let number = |text| parse(text).filter(|number| *number > 0);
    let Some((first, last)) = text.split_once("..") else { return Some(vec![number(text)?]) };
    let (first, last) = (number(first)?, number(last)?);
    let all = std::iter::successors(Some(first), |number| number.checked_mul(2));
    (first <= last).then(|| all.take_while(|number| *number <= last).collect())
}

/// A number of bytes, alone or with a unit, powers of 1,024: `16KiB`, `16K`, `1MiB`, `512B`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_doublings_with_both_ends() {
        let sizes = |text: &str| text.parse().map(|BlockSizes(sizes)| sizes);
        assert_eq!(sizes("512..4KiB"), Ok(vec![512, 1024, 2048, 4096]));
        assert_eq!(sizes("16MiB"), Ok(vec![16 << 20]));
        assert_eq!(sizes("1k..1K"), Ok(vec![1024]));
        assert_eq!(sizes("3..13"), Ok(vec![3, 6, 12]));
        let BatchSizes(batches) = "1..8".parse().unwrap();
        assert_eq!(batches.iter().map(|batch| batch.get()).collect::<Vec<_>>(), [1, 2, 4, 8]);
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_is_allowed() {
        for text in ["", "0", "..", "1..", "2..1", "1x", "0..4", "-1", "18446744073709551615G"] {
            assert!(text.parse::<BlockSizes>().unwrap_err().contains("512..16MiB"), "{text}");
        }
        for text in ["0", "1KiB", "1048577", "1..2000000", "4..2"] {
            assert!(text.parse::<BatchSizes>().unwrap_err().contains("1 to 1048576"), "{text}");
        }
    }
}
