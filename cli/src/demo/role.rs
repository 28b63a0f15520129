//! Who a process of the demo is.

use std::fmt;
use std::str::FromStr;

use kvx::RankKey;

use super::options::Options;

/// One worker rank. Its text form, `prefill-INSTANCE-RANK` or `decode-RANK`, is the name of its
/// engine too, and so what errors call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Computes the prompt of its instance.
    Prefill { instance: u32, rank: u32 },
    /// Receives the prompts of all instances.
    Decode { rank: u32 },
}

impl Role {
    /// Everyone that the options ask for, prefill first.
    pub(super) fn all(options: &Options) -> Vec<Self> {
        let ranks = 0..options.tp;
        let prefill = (0..options.prefill)
            .flat_map(|instance| ranks.clone().map(move |rank| Self::Prefill { instance, rank }));
        prefill.chain(ranks.clone().map(|rank| Self::Decode { rank })).collect()
    }

    pub(super) fn rank(self) -> u32 {
        let (Self::Prefill { rank, .. } | Self::Decode { rank }) = self;
        rank
    }

    /// Whether it must know where this prefill instance's directory is. Rank 0 holds it.
    pub(super) fn asks_directory_of(self, instance: u32) -> bool {
        match self {
            Self::Prefill { instance: own, rank } => own == instance && rank != 0,
            Self::Decode { .. } => true,
        }
    }

    /// What it does with whom while KV caches move, in the words of the engine's errors.
    pub(super) fn transfer(self, instances: u32) -> String {
        match self {
            Self::Prefill { rank, .. } => format!("send KV cache, peer {}", Self::Decode { rank }),
            Self::Decode { rank } => {
                let senders = (0..instances).map(|instance| Self::Prefill { instance, rank });
                let senders: Vec<_> = senders.map(|sender| sender.to_string()).collect();
                format!("receive KV cache, peer {}", senders.join(" and "))
            }
        }
    }
}

/// How a directory knows a prefill rank.
pub(super) fn rank_key(instance: u32, rank: u32) -> RankKey {
    RankKey { instance: format!("prefill-{instance}"), dp: 0, pp: 0, tp: rank }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefill { instance, rank } => write!(f, "prefill-{instance}-{rank}"),
            Self::Decode { rank } => write!(f, "decode-{rank}"),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('-');
        let kind = parts.next();
        let numbers: Option<Vec<u32>> = parts.map(|part| part.parse().ok()).collect();
        match (kind, numbers.as_deref()) {
            (Some("prefill"), Some(&[instance, rank])) => Ok(Self::Prefill { instance, rank }),
            (Some("decode"), Some(&[rank])) => Ok(Self::Decode { rank }),
            _ => Err("expected prefill-INSTANCE-RANK or decode-RANK".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_parsed_from_its_name() {
        for role in [Role::Prefill { instance: 3, rank: 1 }, Role::Decode { rank: 7 }] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for text in ["", "decode", "decode-x", "prefill-1", "prefill-1-2-3", "other-1"] {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
    }
}
