//! The last lines of what happened in a run, for who reads why it failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// The last lines of what happened in a run. Costs most of the run's time, so that it is made only
/// when a seed that failed is run again.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<VecDeque<String>>>);

/// Lines that a trace keeps.
const TRACE_LINES: usize = 400;

impl Trace {
    /// The lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TRACE_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}
