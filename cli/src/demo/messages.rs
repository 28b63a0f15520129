//! What the parent and its processes say to each other: one line each, over the children's
//! standard input and output. Both ends are the same program, so that the form may change freely.

use std::fmt;
use std::net::SocketAddr;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use kvx::transport::TransportKind;

/// From the parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The directory of a prefill instance is here.
    Directory { instance: u32, address: SocketAddr },
    /// Everyone is ready: compute and transfer.
    Go,
}

/// To the parent. Times are those of [`crate::clock::now`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The engine that holds this instance's directory listens here.
    Listening(SocketAddr),
    /// Memory is allocated and peers are connected.
    Ready,
    /// So many layers of an instance's prompt have arrived.
    Arrived {
        instance: u32,
        layers: u32,
    },
    Sent(Sent),
    Received(Received),
    /// What an instance's prompt came over.
    Transport {
        instance: u32,
        transport: TransportKind,
    },
    /// CPU time of a decode process for all its sessions.
    Spent {
        cpu: Duration,
    },
    /// SHA-256 over a prompt's blocks in this process's own memory, in hexadecimal.
    Digest {
        instance: u32,
        digest: String,
    },
    /// So many bytes outside of the granted blocks have changed.
    Outside {
        bytes: u64,
    },
    /// Nothing more will come.
    Done,
    /// The process ends for this reason.
    Failed(String),
}

/// A prefill rank's share of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// When the first layer began to be computed.
    pub(super) begin: Duration,
    /// When the first layer was handed to the engine.
    pub(super) first_write: Duration,
    /// When the last layer had been computed.
    pub(super) computed: Duration,
    pub(super) bytes: u64,
    pub(super) runs: u64,
    /// CPU time of the process, without that for computing the content.
    pub(super) cpu: Duration,
}

/// A decode rank's share of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) instance: u32,
    /// When the first layer was there.
    pub(super) first_layer: Duration,
    /// When everything was there.
    pub(super) complete: Duration,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { instance, address } => write!(f, "directory {instance} {address}"),
            Self::Go => f.write_str("go"),
        }
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = Words(line.split_whitespace());
        let order = match words.next()? {
            "directory" => Self::Directory { instance: words.parse()?, address: words.parse()? },
            "go" => Self::Go,
            other => return Err(format!("unknown order {other:?}")),
        };
        Ok(order)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(address) => write!(f, "listening {address}"),
            Self::Ready => f.write_str("ready"),
            Self::Arrived { instance, layers } => write!(f, "arrived {instance} {layers}"),
            Self::Sent(Sent { begin, first_write, computed, bytes, runs, cpu }) => {
                let [begin, first_write, computed] = [begin, first_write, computed].map(nanos);
                let cpu = nanos(cpu);
                write!(f, "sent {begin} {first_write} {computed} {bytes} {runs} {cpu}")
            }
            Self::Received(Received { instance, first_layer, complete }) => {
                write!(f, "received {instance} {} {}", nanos(first_layer), nanos(complete))
            }
            Self::Transport { instance, transport } => {
                write!(f, "transport {instance} {transport}")
            }
            Self::Spent { cpu } => write!(f, "spent {}", nanos(cpu)),
            Self::Digest { instance, digest } => write!(f, "digest {instance} {digest}"),
            Self::Outside { bytes } => write!(f, "outside {bytes}"),
            Self::Done => f.write_str("done"),
            Self::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

impl FromStr for Report {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        if let Some(why) = line.strip_prefix("failed ") {
            return Ok(Self::Failed(why.to_owned()));
        }
        let mut words = Words(line.split_whitespace());
        let report = match words.next()? {
            "listening" => Self::Listening(words.parse()?),
            "ready" => Self::Ready,
            "arrived" => Self::Arrived { instance: words.parse()?, layers: words.parse()? },
            "sent" => Self::Sent(Sent {
                begin: words.time()?,
                first_write: words.time()?,
                computed: words.time()?,
                bytes: words.parse()?,
                runs: words.parse()?,
                cpu: words.time()?,
            }),
            "received" => Self::Received(Received {
                instance: words.parse()?,
                first_layer: words.time()?,
                complete: words.time()?,
            }),
            "transport" => Self::Transport { instance: words.parse()?, transport: words.parse()? },
            "spent" => Self::Spent { cpu: words.time()? },
            "digest" => Self::Digest { instance: words.parse()?, digest: words.parse()? },
            "outside" => Self::Outside { bytes: words.parse()? },
            "done" => Self::Done,
            other => return Err(format!("unknown report {other:?}")),
        };
        Ok(report)
    }
}

struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "a line that ends too early".to_owned())
    }

    fn parse<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.next()?;
        word.parse().map_err(|_| format!("{word:?} is not what belongs there"))
    }

    fn time(&mut self) -> Result<Duration, String> {
        self.parse().map(Duration::from_nanos)
    }
}

/// 64 bits of nanoseconds are 584 years.
fn nanos(time: &Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_says_the_other_hears() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8998));
        for order in [Order::Directory { instance: 1, address }, Order::Go] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        let time = Duration::from_nanos;
        let reports = [
            Report::Listening(address),
            Report::Ready,
            Report::Arrived { instance: 1, layers: 2 },
            Report::Sent(Sent {
                begin: time(1),
                first_write: time(2),
                computed: time(3),
                bytes: 4,
                runs: 5,
                cpu: time(6),
            }),
            Report::Received(Received { instance: 1, first_layer: time(2), complete: time(3) }),
            Report::Transport { instance: 1, transport: TransportKind::Shm },
            Report::Spent { cpu: time(1) },
            Report::Digest { instance: 1, digest: "ab".to_owned() },
            Report::Outside { bytes: 3 },
            Report::Done,
            Report::Failed("write, peer decode-0: the peer shut down".to_owned()),
        ];
        for report in reports {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
        assert!("sent 1 2".parse::<Report>().is_err());
        assert!("gone".parse::<Order>().is_err());
    }
}
