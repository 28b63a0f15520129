//! A finding: what was found, how bad that is, and what to do about it. Not how it is written.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is to be done.
    Ok,
    /// kvx works; worth knowing, or not to be told.
    Note,
    /// kvx works, but slower, or reaches less than one would think.
    Warning,
    /// kvx does not work.
    Problem,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at. What is not ok has advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was looked at; the same in every version, for programs that look for it.
    pub(super) name: &'static str,
    pub(super) found: String,
    verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// A state that is not [`State::Ok`], and what to do about it.
    Not(State, String),
}

impl Finding {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Ok }
    }

    pub(super) fn note(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::not(State::Note, name, found, advice)
    }

    pub(super) fn warning(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::not(State::Warning, name, found, advice)
    }

    pub(super) fn problem(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::not(State::Problem, name, found, advice)
    }

    /// Something that could not be looked at, and why. No problem by itself.
    pub(super) fn unknown(name: &'static str, why: impl fmt::Display) -> Self {
        let advice = "kvx does without knowing it; to have it checked, run kvx doctor where it can \
                      be read, such as outside of the container.";
        Self::note(name, format!("unknown: {why}"), advice)
    }

    fn not(
        state: State,
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Not(state, advice.into()) }
    }

    pub(super) fn state(&self) -> State {
        match &self.verdict {
            Verdict::Ok => State::Ok,
            Verdict::Not(state, _) => *state,
        }
    }

    /// What to do; `None` exactly for what is ok.
    pub(super) fn advice(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Ok => None,
            Verdict::Not(_, advice) => Some(advice),
        }
    }
}

/// Findings that belong together.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) findings: Vec<Finding>,
}

impl Section {
    pub(super) fn new(title: &'static str, findings: Vec<Finding>) -> Self {
        Self { title, findings }
    }
}
