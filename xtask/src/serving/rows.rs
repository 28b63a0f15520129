//! The rows that `tests/serving/kvx_serving` prints, counted.

use crate::report::Suite;

/// Counts by the lines `KVX-SUITE NAME`, `KVX-PASS ROW`, `KVX-FAIL ROW: REASON` and
/// `KVX-SKIP ROW: REASON`.
#[derive(Debug)]
pub(super) struct Rows {
    environment: String,
    suites: Vec<Suite>,
}

impl Rows {
    pub(super) fn new(environment: &str) -> Self {
        Self { environment: environment.to_owned(), suites: Vec::new() }
    }

    /// Takes a line of output.
    pub(super) fn line(&mut self, line: &str) {
        let Some((word, rest)) = line.strip_prefix("KVX-").and_then(|line| line.split_once(' '))
        else {
            return;
        };
        if word == "SUITE" {
            self.suites.push(Suite::new(rest));
            return;
        }
        let suite = self.last();
        let (row, reason) = rest.split_once(": ").unwrap_or((rest, ""));
        match word {
            "PASS" => suite.passed += 1,
            "FAIL" => suite.fail(row, reason),
            "SKIP" => suite.skip(row, reason),
            _ => (),
        }
    }

    /// The suites; `ended` is why the program ended that printed them, unless it ended well.
    pub(super) fn finish(mut self, ended: Option<String>) -> Vec<Suite> {
        if let Some(reason) = ended {
            self.last().fail("all rows", &reason);
        }
        if self.suites.iter().all(Suite::is_empty) {
            self.last().fail("all rows", "nothing was checked");
        }
        self.suites
    }

    fn last(&mut self) -> &mut Suite {
        if self.suites.is_empty() {
            self.suites.push(Suite::new(&self.environment));
        }
        let last = self.suites.len() - 1;
        &mut self.suites[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    fn summary(lines: &[&str], ended: Option<&str>) -> String {
        let mut rows = Rows::new("vllm");
        lines.iter().for_each(|line| rows.line(line));
        let mut report = Report::default();
        report.extend(rows.finish(ended.map(str::to_owned)));
        report.summary()
    }

    #[test]
    fn rows_are_counted_by_suite() {
        let lines = [
            "KVX-SUITE first",
            "KVX-PASS 5 tokens",
            "starting a server",
            "KVX-FAIL control: decode: token 3: is 1",
            "KVX-SUITE second",
            "KVX-SKIP all rows: no plugin",
        ];
        let summary = summary(&lines, None);
        assert!(summary.contains("first        1       1        0\n"), "{summary}");
        assert!(summary.contains("  first: control: decode: token 3: is 1\n"), "{summary}");
        assert!(summary.contains("  second: all rows: no plugin\n"), "{summary}");
        assert!(summary.ends_with("\n1 passed, 1 failed, 1 skipped\n"), "{summary}");
    }

    #[test]
    fn a_program_that_ends_badly_fails_the_suite_it_was_at() {
        let lines = ["KVX-SUITE first", "KVX-PASS 5 tokens"];
        let summary = summary(&lines, Some("killed"));
        assert!(summary.contains("  first: all rows: killed\n"), "{summary}");
    }

    #[test]
    fn a_program_that_checks_nothing_has_failed() {
        for lines in [&[][..], &["KVX-SUITE first"]] {
            assert!(summary(lines, None).contains("nothing was checked"), "{lines:?}");
        }
    }
}
