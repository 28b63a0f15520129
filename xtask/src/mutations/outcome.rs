//! What became of mutations, and the table of it.

use std::fmt::{self, Write};
use std::time::Duration;

use super::suites::{SuiteName, Verdict};

/// What each suite says of a mutation.
pub(super) type Verdicts = Vec<(SuiteName, Verdict)>;

/// What became of one mutation.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: String,
    /// Or why it could not be tried: a fault of the list.
    pub(super) noticed: Result<Verdicts, String>,
    pub(super) took: Duration,
}

impl Outcome {
    /// Why it does not count as caught.
    pub(super) fn failure(&self) -> Option<String> {
        let verdicts = match &self.noticed {
            Ok(verdicts) => verdicts,
            Err(error) => return Some(error.clone()),
        };
        let passed: Vec<String> = verdicts
            .iter()
            .filter(|(_, verdict)| *verdict == Verdict::Passed)
            .map(|(suite, _)| suite.to_string())
            .collect();
        (!passed.is_empty()).then(|| format!("survived {}", passed.join(", ")))
    }

    /// Why this machine cannot tell whether it is caught.
    pub(super) fn skip(&self) -> Option<String> {
        let mut verdicts = self.noticed.iter().flatten();
        let skipped = verdicts.find(|(_, verdict)| matches!(verdict, Verdict::Skipped(_)));
        skipped.filter(|_| self.failure().is_none()).map(|(_, verdict)| verdict.to_string())
    }

    /// In a word.
    fn mark(&self) -> &'static str {
        match (self.failure(), self.skip()) {
            (Some(_), _) => "NOT CAUGHT",
            (None, Some(_)) => "skipped",
            (None, None) => "caught",
        }
    }

    /// By whom it was caught, or why it was not.
    fn by(&self) -> String {
        self.failure().unwrap_or_else(|| {
            let verdicts = self.noticed.iter().flatten();
            let by: Vec<String> =
                verdicts.map(|(suite, verdict)| format!("{}: {verdict}", suite.binary())).collect();
            by.join("; ")
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, seconds) = (self.mark(), self.took.as_secs_f32());
        write!(f, "{mark} {}: {} ({seconds:.1} s)", self.name, self.by())
    }
}

/// One line a mutation: its name, who caught it, and how long that took.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes.iter().map(|outcome| outcome.name.len()).max();
    let width = width.unwrap_or(0).max("mutation".len());
    let mut text = format!("{:width$}  seconds  {:10}  by\n", "mutation", "");
    for outcome in outcomes {
        let (mark, seconds) = (outcome.mark(), outcome.took.as_secs_f32());
        let (name, by) = (&outcome.name, outcome.by());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:width$}  {seconds:7.1}  {mark:10}  {by}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(noticed: Result<Vec<(&str, Verdict)>, String>) -> Outcome {
        let named = |(suite, verdict)| (SuiteName::parse(suite).unwrap(), verdict);
        let noticed = noticed.map(|verdicts| verdicts.into_iter().map(named).collect());
        Outcome { name: "broken".to_owned(), noticed, took: Duration::from_millis(2500) }
    }

    #[test]
    fn every_suite_must_notice() {
        let failed = || Verdict::Failed(vec!["one".to_owned(), "two".to_owned()]);
        let hung = Verdict::Hung(Duration::from_secs(60));
        let both = outcome(Ok(vec![("a lib", failed()), ("b lib", hung)]));
        let expected = "
mutation  seconds              by
broken        2.5  caught      a lib: one and 1 more; b lib: hung for 60 s
";
        assert_eq!(format!("\n{}", table(&[both])), expected);
        let one = outcome(Ok(vec![("a lib", failed()), ("b lib", Verdict::Passed)]));
        assert_eq!(one.failure().unwrap(), "survived b lib");
    }

    #[test]
    fn what_this_machine_cannot_run_is_neither_caught_nor_not() {
        let skipped = Verdict::Skipped("KVX-SKIP leases::one: not permitted".to_owned());
        let outcome = outcome(Ok(vec![("a lib", skipped)]));
        assert!(outcome.failure().is_none());
        assert_eq!(outcome.skip().unwrap(), "skipped, KVX-SKIP leases::one: not permitted");
        assert_eq!(outcome.mark(), "skipped");
    }

    #[test]
    fn what_does_not_build_is_not_caught() {
        let useless = outcome(Err("does not build: error[E0425]".to_owned()));
        assert!(table(&[useless]).contains("NOT CAUGHT  does not build"));
    }
}
