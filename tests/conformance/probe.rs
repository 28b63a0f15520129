//! Small transfers beside the one under test: they show that a peer is still served, and, sent and
//! answered over the same lanes, that what was queued before them has come out.

use kvx::{Engine, Peer, PostOptions, Prepared, TransferOp};

use crate::memory::{Memory, READ_WRITE, add, assert_same, pattern, prepare, span};

const LEN: u64 = 4096;

/// Writes to an engine and reads back.
pub(crate) struct Probe {
    pub(crate) peer: Peer,
    source: Memory,
    sink: Memory,
    target: Memory,
    write: Prepared,
    read: Prepared,
}

impl Probe {
    pub(crate) fn new(from: &Engine, to: &Engine) -> Self {
        let target = Memory::new(to, LEN, READ_WRITE);
        let source = Memory::new(from, LEN, kvx::Rights::empty());
        let sink = Memory::new(from, LEN, kvx::Rights::empty());
        let peer = add(from, to, &[&target]);
        let pairs = [(span(0, 0, LEN), span(0, 0, LEN))];
        let write = prepare(&peer, TransferOp::Write, &[&source], &pairs).unwrap();
        let read = prepare(&peer, TransferOp::Read, &[&sink], &pairs).unwrap();
        Self { peer, source, sink, target, write, read }
    }

    /// New bytes go there, so many times.
    #[track_caller]
    pub(crate) fn writes(&self, rounds: usize) {
        for _ in 0..rounds {
            let bytes = pattern(LEN as usize);
            self.source.buffer.write(0, &bytes).unwrap();
            self.write.post(PostOptions::new()).unwrap().wait().unwrap();
            assert_same(&self.target.bytes(), &bytes, "what the probe wrote");
        }
    }

    /// New bytes go there and come back, so many times. Successive posts take successive lanes.
    #[track_caller]
    pub(crate) fn rounds(&self, rounds: usize) {
        for _ in 0..rounds {
            self.writes(1);
            self.read.post(PostOptions::new()).unwrap().wait().unwrap();
            assert_same(&self.sink.bytes(), &self.source.bytes(), "what the probe read back");
        }
    }
}
