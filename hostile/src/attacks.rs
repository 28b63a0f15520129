//! The attacks, by what they abuse. Each does one round and judges every answer by what
//! PROTOCOL.md says it must be; what it writes where it may, it writes into the first 4 KiB of a
//! region alone, so that every byte beyond is a witness.

mod bearers;
mod control;
mod directory;
mod floods;
mod frames;
mod grants;
mod greetings;
mod handshakes;
mod lanes;
mod listening;
mod memory;
mod noise;
mod notifications;
mod publishing;
mod rings;
mod stalls;
mod transfers;

use crate::Attack;

/// All of them.
pub(crate) const ALL: &[&[Attack]] = &[
    handshakes::ATTACKS,
    bearers::ATTACKS,
    lanes::ATTACKS,
    memory::ATTACKS,
    transfers::ATTACKS,
    grants::ATTACKS,
    frames::ATTACKS,
    control::ATTACKS,
    notifications::ATTACKS,
    publishing::ATTACKS,
    directory::ATTACKS,
    floods::ATTACKS,
    stalls::ATTACKS,
    noise::ATTACKS,
    listening::ATTACKS,
    greetings::ATTACKS,
    rings::ATTACKS,
];

/// Bytes at the start of a writable region that attacks may write.
pub(crate) const YARD: u64 = 4096;
