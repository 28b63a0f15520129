//! What a person sees while rows are measured: a bar on stderr, if that is a terminal. Rows go to
//! stdout, a line each.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::messages::op_name;
use super::options::Task;

/// Shows how far the benchmark is, and prints its rows.
pub(super) struct Progress {
    bar: ProgressBar,
    /// What stands above the first row, until that has begun.
    heads: Option<String>,
}

impl Progress {
    /// `reps` transfers will be measured in all.
    pub(super) fn new(reps: u64) -> Self {
        if !io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), heads: None };
        }
        let of = "{prefix} {bar:40.green/dim} {percent:>3} % {msg}";
        // Every placeholder is one that indicatif knows; a bar of its own would do too.
        let style =
            ProgressStyle::with_template(of).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(reps).with_style(style.progress_chars("━╸─"));
        Self { bar: bar.with_prefix("kvx bench"), heads: None }
    }

    /// Prints this line above the first row.
    pub(super) fn under(self, heads: String) -> Self {
        Self { heads: Some(heads), ..self }
    }

    /// This row is next.
    pub(super) fn begin(&mut self, task: &Task) -> io::Result<()> {
        self.bar.set_message(format!("{} {}", task.workload, op_name(task.op)));
        self.heads.take().map_or(Ok(()), |heads| self.print(&heads))
    }

    /// So many more transfers are measured.
    pub(super) fn advance(&mut self, reps: u64) {
        self.bar.inc(reps);
    }

    /// Prints a line of the result.
    pub(super) fn print(&self, line: &str) -> io::Result<()> {
        self.bar.suspend(|| {
            let mut stdout = io::stdout();
            writeln!(stdout, "{line}")?;
            stdout.flush()
        })
    }

    /// Tells a person on stderr what the rows do not say. There is nobody to tell if that fails.
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| _ = writeln!(io::stderr(), "note: {text}"));
    }

    /// All is measured.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
