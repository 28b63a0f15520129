//! One-sided transfers and notifications of a worker.

use std::time::Duration;

use kvx::error::{Cause, Error, Operation, Result};
use kvx::{Engine, PostOptions, Span, Spans, TransferOp, TransferReport};

use super::Service;
use crate::line::{Line, list};

impl Service {
    /// `post id= op=write|read peer= name= region= len= [offset=] [runs=] [notify=]
    /// [deadline= ms]`: moves `len` bytes at `offset` between own memory and the same place of the
    /// peer's region of this number. `runs` cuts them into as many, back to front, so that none
    /// merge.
    pub(super) fn post(&mut self, command: &Line) -> Result<String> {
        let op = match command.get("op") {
            "write" => TransferOp::Write,
            _ => TransferOp::Read,
        };
        let peer = &self.peers[command.get("peer")];
        let local = self.memory[command.get("name")].region.as_ref().unwrap();
        let remote = [peer.regions()[command.number::<usize>("region")].id];
        let offset = command.find_number("offset").unwrap_or(0);
        let runs = command.find_number("runs").unwrap_or(1);
        let spans = spans(offset, command.number("len"), runs);
        let prepared = peer.prepare(op, (&[local], &spans), (&remote, &spans))?;
        let mut options = PostOptions::new();
        if let Some(text) = command.find("notify") {
            options = options.notify(text.to_owned());
        }
        if let Some(deadline) = command.millis("deadline") {
            options = options.deadline(deadline, None);
        }
        self.transfers.insert(command.get("id").to_owned(), prepared.post(options)?);
        Ok("ok".to_owned())
    }

    /// `poll id=`: `pending`, or the outcome.
    pub(super) fn poll(&self, command: &Line) -> Result<String> {
        let outcome = self.transfers[command.get("id")].poll();
        outcome.map_or(Ok("pending".to_owned()), |outcome| outcome.map(told))
    }

    /// `wait id=`: the outcome.
    pub(super) fn wait(&self, command: &Line) -> Result<String> {
        self.transfers[command.get("id")].wait().map(told)
    }

    /// `cancel id=`
    pub(super) fn cancel(&self, command: &Line) -> String {
        self.transfers[command.get("id")].cancel();
        "ok".to_owned()
    }

    /// `notify peer= from= to=`: one notification for each number, all under way at once.
    pub(super) fn notify(&self, command: &Line) -> Result<String> {
        let peer = &self.peers[command.get("peer")];
        let numbers = command.number::<u64>("from")..command.number("to");
        let posted: Vec<_> = numbers.map(|number| peer.notify(number.to_string())).collect();
        posted.iter().try_for_each(|operation| operation.wait())?;
        Ok("ok".to_owned())
    }

    /// `notify-long peer= len=`: one notification of so many bytes.
    pub(super) fn notify_long(&self, command: &Line) -> Result<String> {
        let bytes = vec![b'x'; command.number("len")];
        self.peers[command.get("peer")].notify(bytes).wait()?;
        Ok("ok".to_owned())
    }

    /// `prepare peer= name= region= runs=`: plans a WRITE of as many spans of a byte each, and posts
    /// nothing.
    pub(super) fn prepare(&self, command: &Line) -> Result<String> {
        let peer = &self.peers[command.get("peer")];
        let local = self.memory[command.get("name")].region.as_ref().unwrap();
        let remote = [peer.regions()[command.number::<usize>("region")].id];
        let runs: u64 = command.number("runs");
        let span = |index: u64| Span { region: 0, offset: 2 * (index % 1024), len: 1 };
        let mut spans = Spans::new();
        let bytes = runs.saturating_mul(20);
        spans
            .try_reserve(runs as usize)
            .map_err(|_| Error::new(Operation::Prepare, Cause::OutOfMemory { bytes }))?;
        (0..runs).for_each(|index| spans.push(span(index)));
        let prepared = peer.prepare(TransferOp::Write, (&[local], &spans), (&remote, &spans))?;
        Ok(format!("ok runs={}", prepared.runs()))
    }

    /// `notes count= [quiet= ms]`: that many notifications, in order of arrival, and any that
    /// comes in the `quiet` time after them.
    pub(super) fn notes(&self, command: &Line) -> String {
        let count = command.number::<usize>("count");
        let quiet = command.millis("quiet").unwrap_or(Duration::ZERO);
        let mut seen = Vec::new();
        while let Some(text) = note(self.engine(), if seen.len() < count { LONG } else { quiet }) {
            seen.push(text);
        }
        format!("ok seen={}", list(&seen))
    }
}

/// How long a notification that must come is waited for.
const LONG: Duration = Duration::from_secs(30);

fn note(engine: &Engine, patience: Duration) -> Option<String> {
    let note = engine.wait_notification(patience)?;
    Some(String::from_utf8(note.bytes.to_vec()).unwrap())
}

fn told(report: TransferReport) -> String {
    format!("ok bytes={}", report.bytes)
}

/// `len` bytes from `offset` on in `runs` runs with the last first: on both sides the same.
fn spans(offset: u64, len: u64, runs: u64) -> Spans {
    let piece = len / runs;
    let span = |index: u64| {
        let begin = offset + index * piece;
        let end = if index + 1 == runs { offset + len } else { begin + piece };
        Span { region: 0, offset: begin, len: end - begin }
    };
    (0..runs).rev().map(span).collect()
}
