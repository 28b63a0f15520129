//! Why bytes did not parse.

/// Why bytes from outside did not parse, or why a value cannot be put into bytes. `what` names the
/// structure or field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes do not begin as they must: they are something else altogether.
    #[error("{what}: does not begin with its magic number")]
    Magic {
        /// The structure.
        what: &'static str,
    },
    /// The bytes end inside a structure.
    #[error("{what}: ends after {have} of {need} bytes")]
    Truncated {
        /// The structure or field.
        what: &'static str,
        /// What it takes.
        need: usize,
        /// What was left.
        have: usize,
    },
    /// Bytes are left after the end of a structure.
    #[error("{what}: {left} bytes too many")]
    Trailing {
        /// The structure.
        what: &'static str,
        /// The number of bytes left.
        left: usize,
    },
    /// A value that the field must not have.
    #[error("{what}: {value} is not allowed")]
    Value {
        /// The field.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A number that names nothing in the versions spoken here.
    #[error("{what} {value} is not known")]
    Unknown {
        /// What the number should name.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A length or count beyond its bound.
    #[error("{what}: {value} is above the bound of {limit}")]
    Limit {
        /// The field.
        what: &'static str,
        /// The value.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what}: not UTF-8")]
    Utf8 {
        /// The field.
        what: &'static str,
    },
    /// A required extension that is not known here.
    #[error("{what}: required extension {tag:#06x} is not known")]
    Required {
        /// The structure.
        what: &'static str,
        /// Its tag.
        tag: u16,
    },
    /// Extensions that are not in ascending order, or twice the same.
    #[error("{what}: extension {tag:#06x} is out of order")]
    Order {
        /// The structure.
        what: &'static str,
        /// The tag that came too late.
        tag: u16,
    },
    /// Bytes that were damaged on their way.
    #[error("{what}: the checksum is {found:#010x} where {expected:#010x} was expected")]
    Checksum {
        /// The structure.
        what: &'static str,
        /// The checksum of the bytes as they are.
        expected: u32,
        /// The checksum that stands in them.
        found: u32,
    },
    /// A combination of values that makes no sense.
    #[error("{what} makes no sense")]
    Inconsistent {
        /// The structure or field.
        what: &'static str,
    },
    /// Memory for what was read or is to be written cannot be had.
    #[error("{what}: no memory for {bytes} bytes")]
    Memory {
        /// The structure or field.
        what: &'static str,
        /// What was asked for.
        bytes: usize,
    },
    /// The other side said that it cannot parse what it was sent from here.
    #[error("the peer could not parse what it was sent")]
    Reported,
}
