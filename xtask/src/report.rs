//! What was counted, by suite, and the table at the end.

use std::fmt::Write;

/// The results of all suites.
#[derive(Debug, Default)]
pub(crate) struct Report {
    suites: Vec<Suite>,
}

/// The results of one suite.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The suite's name in the table.
    pub(crate) name: String,
    /// Tests that ran and passed.
    pub(crate) passed: usize,
    failed: Vec<Named>,
    skipped: Vec<Named>,
}

/// A test that did not pass.
#[derive(Debug)]
struct Named {
    test: String,
    reason: String,
}

impl Suite {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), passed: 0, failed: Vec::new(), skipped: Vec::new() }
    }

    pub(crate) fn fail(&mut self, test: &str, reason: &str) {
        self.failed.push(Named { test: test.to_owned(), reason: reason.to_owned() });
    }

    pub(crate) fn skip(&mut self, test: &str, reason: &str) {
        self.skipped.push(Named { test: test.to_owned(), reason: reason.to_owned() });
    }

    /// Whether a test of this name was skipped.
    pub(crate) fn has_skipped(&self, test: &str) -> bool {
        self.skipped.iter().any(|named| named.test == test)
    }

    /// Whether a test of this name failed.
    pub(crate) fn has_failed(&self, test: &str) -> bool {
        self.failed.iter().any(|named| named.test == test)
    }

    /// How many failed.
    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed == 0 && self.failed.is_empty() && self.skipped.is_empty()
    }
}

impl Report {
    /// Takes a suite up; one without tests says nothing.
    pub(crate) fn add(&mut self, suite: Suite) {
        if !suite.is_empty() {
            self.suites.push(suite);
        }
    }

    pub(crate) fn extend(&mut self, suites: impl IntoIterator<Item = Suite>) {
        suites.into_iter().for_each(|suite| self.add(suite));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.suites.iter().any(|suite| !suite.failed.is_empty())
    }

    /// The table, the reasons, and the line that counts all.
    pub(crate) fn summary(&self) -> String {
        let width = self.suites.iter().map(|suite| suite.name.chars().count()).max();
        let width = width.unwrap_or(0).max("suite".len());
        let mut text = format!("\n{:width$}  passed  failed  skipped\n", "suite");
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        for suite in &self.suites {
            let counts = (suite.passed, suite.failed.len(), suite.skipped.len());
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:width$}  {:6}  {:6}  {:7}",
                suite.name, counts.0, counts.1, counts.2
            );
            passed += counts.0;
            failed += counts.1;
            skipped += counts.2;
        }
        text += &self.reasons("skipped", |suite| &suite.skipped);
        text += &self.reasons("failed", |suite| &suite.failed);
        let _ = writeln!(text, "\n{passed} passed, {failed} failed, {skipped} skipped");
        text
    }

    fn reasons(&self, title: &str, which: impl Fn(&Suite) -> &Vec<Named>) -> String {
        let lines = self.suites.iter().flat_map(|suite| {
            which(suite)
                .iter()
                .map(|named| format!("  {}: {}: {}\n", suite.name, named.test, named.reason))
        });
        let lines: String = lines.collect();
        if lines.is_empty() { lines } else { format!("\n{title}:\n{lines}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_row_a_suite_and_every_reason_and_ends_with_the_sums() {
        let mut first = Suite::new("first");
        first.passed = 12;
        first.skip("needs::a_gpu", "no CUDA device");
        let mut second = Suite::new("the second");
        second.passed = 1;
        second.fail("breaks", "exit status: 1, expected 0");
        let mut report = Report::default();
        report.extend([first, Suite::new("empty"), second]);
        assert!(report.has_failed());
        let expected = "
suite       passed  failed  skipped
first           12       0        1
the second       1       1        0

skipped:
  first: needs::a_gpu: no CUDA device

failed:
  the second: breaks: exit status: 1, expected 0

13 passed, 1 failed, 1 skipped
";
        assert_eq!(report.summary(), expected);
    }

    #[test]
    fn without_failures_and_skips_the_summary_gives_no_reasons() {
        let mut suite = Suite::new("all");
        suite.passed = 3;
        let mut report = Report::default();
        report.add(suite);
        assert!(!report.has_failed());
        assert!(
            report.summary().ends_with("3       0        0\n\n3 passed, 0 failed, 0 skipped\n")
        );
    }
}
