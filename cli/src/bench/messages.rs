//! What the two sides of a benchmark say to each other, as notifications of the engine: the run
//! asks, the serving side answers, one question at a time.
//!
//! A message is a line of text, `number word arguments`; an answer bears its question's number, so
//! that one that comes too late is not taken for another's.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use kvx::TransferOp;

use super::limit::Means;
use super::memory::{Corrupt, Owner};
use super::shape::Shape;

/// From the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Make memory for this, and serve bare loops if they are asked for; what was there before is no
    /// longer needed.
    SetUp { op: TransferOp, shape: Shape, seed: u64, owner: Owner, limit: Option<Means> },
    /// Put the content of this round into the blocks.
    Fill { round: u64 },
    /// Change a byte.
    Corrupt(Corrupt),
    /// Look whether the blocks hold the content of this round, and all else is as it was.
    Check { round: u64 },
    /// What CPU time has the process used?
    Cpu,
}

/// From the side that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The memory is there: the port of the bare loops, if they were asked for, and the metadata of
    /// the regions.
    Ready { limit_port: Option<u16>, metadata: Vec<u8> },
    /// The blocks are filled, or as they should be.
    Done,
    /// Of all threads since the process began.
    Cpu(Duration),
    /// A byte is not as it should be.
    Differs(String),
    /// It could not be done.
    Failed(String),
}

/// How it is said that no bare loops are asked for, and that they go over sockets.
const NO_LIMIT: &str = "none";
const STREAMS: &str = "streams";

/// A question or an answer, and the number that joins them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) message: T,
}

impl<T: FromStr<Err = String>> Numbered<T> {
    /// Parses what came as a notification.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "a message that is no text".to_owned())?;
        let (number, message) = text.split_once(' ').unwrap_or((text, ""));
        let number = number.parse().map_err(|_| format!("{number:?} is no number"))?;
        Ok(Self { number, message: message.parse()? })
    }
}

impl<T: fmt::Display> fmt::Display for Numbered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.message)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUp { op, shape, seed, owner, limit } => {
                write!(f, "set-up {} {shape} {seed} {} ", op_name(*op), owner.name())?;
                match limit {
                    None => f.write_str(NO_LIMIT),
                    Some(Means::Streams) => f.write_str(STREAMS),
                    Some(Means::Memory(foreign)) => write!(f, "{foreign}"),
                }
            }
            Self::Fill { round } => write!(f, "fill {round}"),
            Self::Corrupt(Corrupt::Inside) => f.write_str("corrupt inside"),
            Self::Corrupt(Corrupt::Outside) => f.write_str("corrupt outside"),
            Self::Check { round } => write!(f, "check {round}"),
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

impl FromStr for Question {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Words(text.split_whitespace());
        let question = match words.next()? {
            "set-up" => Self::SetUp {
                op: words.op()?,
                shape: words.next()?.parse()?,
                seed: words.parse()?,
                owner: words.owner()?,
                limit: words.means()?,
            },
            "fill" => Self::Fill { round: words.parse()? },
            "corrupt" => match words.next()? {
                "inside" => Self::Corrupt(Corrupt::Inside),
                "outside" => Self::Corrupt(Corrupt::Outside),
                other => return Err(format!("{other:?} is no place")),
            },
            "check" => Self::Check { round: words.parse()? },
            "cpu" => Self::Cpu,
            other => return Err(format!("unknown question {other:?}")),
        };
        Ok(question)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { limit_port, metadata } => {
                write!(f, "ready {} ", limit_port.unwrap_or(0))?;
                metadata.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Done => f.write_str("done"),
            // 64 bits of nanoseconds are 584 years.
            Self::Cpu(time) => write!(f, "cpu {}", time.as_nanos() as u64),
            Self::Differs(why) => write!(f, "differs {}", one_line(why)),
            Self::Failed(why) => write!(f, "failed {}", one_line(why)),
        }
    }
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut words = Words(rest.split_whitespace());
        let answer = match word {
            "ready" => Self::Ready {
                limit_port: Some(words.parse()?).filter(|port| *port != 0),
                metadata: words.bytes()?,
            },
            "done" => Self::Done,
            "cpu" => Self::Cpu(Duration::from_nanos(words.parse()?)),
            "differs" => Self::Differs(rest.to_owned()),
            "failed" => Self::Failed(rest.to_owned()),
            other => return Err(format!("unknown answer {other:?}")),
        };
        Ok(answer)
    }
}

/// The operation as users write it.
pub(super) fn op_name(op: TransferOp) -> &'static str {
    match op {
        TransferOp::Write => "write",
        TransferOp::Read => "read",
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', "; ")
}

struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "a message that ends too early".to_owned())
    }

    fn parse<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.next()?;
        word.parse().map_err(|_| format!("{word:?} is not what belongs there"))
    }

    fn op(&mut self) -> Result<TransferOp, String> {
        let word = self.next()?;
        let ops = [TransferOp::Write, TransferOp::Read];
        let op = ops.into_iter().find(|op| op_name(*op) == word);
        op.ok_or_else(|| format!("{word:?} is no operation"))
    }

    fn owner(&mut self) -> Result<Owner, String> {
        let word = self.next()?;
        let owner = [Owner::Engine, Owner::Caller].into_iter().find(|owner| owner.name() == word);
        owner.ok_or_else(|| format!("{word:?} owns no memory"))
    }

    fn means(&mut self) -> Result<Option<Means>, String> {
        Ok(match self.next()? {
            NO_LIMIT => None,
            STREAMS => Some(Means::Streams),
            foreign => Some(Means::Memory(foreign.parse()?)),
        })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let digits = self.next()?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else {
            return Err("half a byte".to_owned());
        };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
        let bytes = pairs.iter().map(byte).collect::<Option<Vec<_>>>();
        bytes.ok_or_else(|| "a digit that is not hexadecimal".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::Workload;
    use super::*;

    #[test]
    fn what_one_side_says_the_other_hears() {
        let shape = Workload::Mla.shape();
        let set_up =
            |owner, limit| Question::SetUp { op: TransferOp::Read, shape, seed: 7, owner, limit };
        let memory = "17:140737488355328:4096".parse().unwrap();
        let questions = [
            set_up(Owner::Engine, None),
            set_up(Owner::Engine, Some(Means::Streams)),
            set_up(Owner::Caller, Some(Means::Memory(memory))),
            Question::Fill { round: 1 },
            Question::Corrupt(Corrupt::Inside),
            Question::Corrupt(Corrupt::Outside),
            Question::Check { round: 2 },
            Question::Cpu,
        ];
        for (number, message) in (0..).zip(questions) {
            let question = Numbered { number, message };
            assert_eq!(Numbered::parse(question.to_string().as_bytes()), Ok(question));
        }
        let answers = [
            Answer::Ready { limit_port: Some(17), metadata: vec![0, 0xab, 0xff] },
            Answer::Ready { limit_port: None, metadata: vec![1] },
            Answer::Done,
            Answer::Cpu(Duration::from_nanos(7)),
            Answer::Differs("pool 1, byte 2: 3 where 4 should be".to_owned()),
            Answer::Failed("no memory".to_owned()),
        ];
        for (number, message) in (0..).zip(answers) {
            let answer = Numbered { number, message };
            assert_eq!(Numbered::parse(answer.to_string().as_bytes()), Ok(answer));
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let set_up = |rest: &str| format!("1 set-up {rest}");
        let good = set_up("write 1x1x1xscattered 1 engine none");
        assert!(Numbered::<Question>::parse(good.as_bytes()).is_ok());
        for text in ["", "1", "x cpu", "1 set-up write"].map(str::to_owned).into_iter().chain([
            set_up("move 1x1x1xscattered 1 engine none"),
            set_up("write 1x1x1xscattered 1 nobody none"),
            set_up("write 1x1x1xscattered 1 engine all"),
            set_up("write 1x1x1xscattered 1 caller 0:1:1"),
            set_up("write 1x1x1xscattered 1 caller -1:1:1"),
            set_up("write 1x1x1xscattered 1 caller 1:1"),
        ]) {
            assert!(Numbered::<Question>::parse(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["1 ready 1 abc", "1 ready 70000 ab", "1 ready 1 zz", "1 cpu", "1 gone"] {
            assert!(Numbered::<Answer>::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Numbered::<Answer>::parse(&[b'1', b' ', 0xff]).is_err());
    }
}
