//! Why the owner of memory refused an access.

/// Why the owner of memory refused an access. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u16)]
#[non_exhaustive]
pub enum Refusal {
    /// The slot names no region.
    #[error("no region has this slot")]
    UnknownSlot = 1,
    /// The region was deregistered.
    #[error("the region was deregistered")]
    RegionClosed = 2,
    /// The span reaches beyond the region.
    #[error("the span lies outside the region")]
    OutOfBounds = 3,
    /// The region allows no remote access of this kind.
    #[error("the region does not allow this access")]
    NoRight = 4,
    /// The region key is wrong.
    #[error("the region key is wrong")]
    WrongKey = 5,
    /// The span lies outside the grant, or the grant is gone.
    #[error("the span is not granted")]
    NotGranted = 6,
    /// The frame came after its expiry.
    #[error("the frame came after its expiry")]
    Expired = 7,
    /// The transfer was fenced before.
    #[error("the transfer is fenced")]
    Fenced = 8,
    /// A bound that protects the owner's memory is reached.
    #[error("the owner's bounds are reached")]
    Busy = 9,
    /// Frames of one transfer contradict each other.
    #[error("the frames of the transfer contradict each other")]
    Inconsistent = 10,
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum = 11,
    /// The memory could not be reached (EFAULT, a failed device copy).
    #[error("the memory could not be reached")]
    MemoryFault = 12,
}

impl Refusal {
    /// Every refusal, in the order of the numbers.
    pub const ALL: [Self; 12] = [
        Self::UnknownSlot,
        Self::RegionClosed,
        Self::OutOfBounds,
        Self::NoRight,
        Self::WrongKey,
        Self::NotGranted,
        Self::Expired,
        Self::Fenced,
        Self::Busy,
        Self::Inconsistent,
        Self::Checksum,
        Self::MemoryFault,
    ];

    /// The refusal of this wire number.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// The wire number.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Whether the same access may be allowed later.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Expired | Self::Busy | Self::Checksum)
    }
}
