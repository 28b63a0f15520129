//! Two engines of this process, connected over loopback TCP, with a region each.

use kvx::{Buffer, Config, Engine, Peer, Prepared, Region, Rights, Span, Spans, TransferOp};

/// The two, the memory of each, and the first's handle of the second.
pub(crate) struct Engines {
    /// Dropped first: an engine that ends waits for nobody.
    target: Peer,
    source: Region,
    _registered: Region,
    _buffers: [Buffer; 2],
    _engines: [Engine; 2],
}

impl Engines {
    /// Engines with `len` bytes of memory each, all of it touched.
    pub(crate) fn new(len: u64) -> kvx::Result<Self> {
        let [first, second] = ["benchmark-0", "benchmark-1"].map(|name| {
            let engine = Engine::new(Config::default().name(name))?;
            let (buffer, region) = engine.allocate(len, Rights::all())?;
            buffer
                .fill(0, len, 1)
                .map_err(|error| kvx::Error::new(kvx::error::Operation::Allocate, error))?;
            Ok::<_, kvx::Error>((engine, buffer, region))
        });
        let ((engine, buffer, source), (other, other_buffer, region)) = (first?, second?);
        let target = engine.add_peer(&other.metadata([&region])?)?;
        target.ready().wait()?;
        Ok(Self {
            target,
            source,
            _registered: region,
            _buffers: [buffer, other_buffer],
            _engines: [engine, other],
        })
    }

    /// Prepares to move the first `len` bytes.
    pub(crate) fn prepare(&self, op: TransferOp, len: u64) -> kvx::Result<Prepared> {
        let spans: Spans = [Span { region: 0, offset: 0, len }].into_iter().collect();
        let remote = self.target.regions()[0].id;
        self.target.prepare(op, (&[&self.source], &spans), (&[remote], &spans))
    }
}
