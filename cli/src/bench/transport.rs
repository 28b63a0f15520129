//! Which transport a benchmark uses where none was asked for: the first of those allowed that moves a
//! few bytes to the peer. Not how fast.

use std::num::NonZeroU32;

use kvx::error::{Cause, Error};
use kvx::transport::TransportKind;
use kvx::{Config, Engine, TransferOp};

use super::Problem;
use super::client::Client;
use super::measure::{Settings, measure};
use super::memory::Owner;
use super::options::Task;
use super::progress::Progress;
use super::shape::{Order, Shape};

/// The first of these that `moves` bytes. One alone is not tried out.
///
/// # Errors
/// Another reason than that it does not lead to the peer; or none leads there.
pub(super) fn first(
    kinds: &[TransportKind],
    mut moves: impl FnMut(TransportKind) -> Result<(), Problem>,
) -> Result<TransportKind, Problem> {
    let mut kinds = kinds.iter().copied().peekable();
    while let Some(kind) = kinds.next() {
        if kinds.peek().is_none() {
            return Ok(kind);
        }
        match moves(kind) {
            Ok(()) => return Ok(kind),
            Err(why) if leads_nowhere(&why) => {}
            Err(why) => return Err(why),
        }
    }
    Err("no transport is allowed".into())
}

fn leads_nowhere(why: &Problem) -> bool {
    why.downcast_ref::<Error>().is_some_and(|error| matches!(error.cause, Cause::NoTransport))
}

/// Moves some blocks to a peer and back by this transport alone.
///
/// # Errors
/// It does not lead there, or something else is wrong.
pub(super) fn attempt(config: Config, kind: TransportKind, peer: &str) -> Result<(), Problem> {
    let engine = Engine::new(config.transports([kind]))?;
    let settings = Settings {
        transport: kind,
        owner: Owner::Engine,
        lanes: engine.lanes(),
        reps: Some(NonZeroU32::MIN),
        warmup: Some(0),
        seed: 1,
        limit: false,
        corrupt: None,
    };
    let mut client = Client::connect(engine, peer)?;
    let shape = Shape { pools: 1, blocks: 4, block_bytes: 4096, order: Order::Scattered };
    for op in [TransferOp::Write, TransferOp::Read] {
        let task = Task { workload: "attempt", shape, op };
        measure(&mut client, &task, &settings, &mut Progress::new(1))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kvx::error::Operation;

    use super::*;

    const BOTH: [TransportKind; 2] = [TransportKind::Shm, TransportKind::Tcp];

    fn nowhere() -> Result<(), Problem> {
        Err(Error::new(Operation::Write, Cause::NoTransport).into())
    }

    #[test]
    fn the_first_that_leads_to_the_peer_is_taken() {
        assert_eq!(first(&BOTH, |_| Ok(())).unwrap(), TransportKind::Shm);
        assert_eq!(first(&BOTH, |_| nowhere()).unwrap(), TransportKind::Tcp);
    }

    #[test]
    fn what_is_asked_for_is_not_tried_out_and_other_errors_are_told() {
        let shm = first(&[TransportKind::Shm], |_| Err("tried".into()));
        assert_eq!(shm.unwrap(), TransportKind::Shm);
        assert!(first(&BOTH, |_| Err("broken".into())).is_err());
        assert!(first(&[], |_| Ok(())).is_err());
    }
}
