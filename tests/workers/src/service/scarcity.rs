//! What a worker runs out of: descriptors. What is limited from outside, the test limits.

use std::fs::File;

use kvx::error::Result;
use kvx::{Config, Engine};

use super::Service;
use crate::line::Line;

impl Service {
    /// `hoard [leave=]`: opens descriptors until there are no more, or as many as it leaves. Answers
    /// how many it opened.
    pub(super) fn hoard(&mut self, command: &Line) -> String {
        self.hoard.extend(std::iter::from_fn(|| File::open("/dev/null").ok().map(Into::into)));
        let left = command.find_number("leave").unwrap_or(0);
        self.hoard.truncate(self.hoard.len().saturating_sub(left));
        format!("ok descriptors={}", self.hoard.len())
    }

    /// `unhoard`: closes them.
    pub(super) fn unhoard(&mut self) -> String {
        self.hoard.clear();
        "ok".to_owned()
    }

    /// `another name=`: builds one more engine, and drops it.
    pub(super) fn build_another(&self, command: &Line) -> Result<String> {
        drop(Engine::new(Config::default().name(command.get("name")))?);
        Ok("ok".to_owned())
    }
}
