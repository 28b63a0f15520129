//! The protocol between two peers, step by step: what is promised, what is refused, what survives.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod protocol {
    mod after_reads;
    mod bearers;
    mod control;
    mod credit;
    mod grants;
    mod handshake;
    mod lanes;
    mod listing;
    mod notifications;
    mod one_sided;
    mod pools;
    mod reads;
    mod refusals;
    mod scale;
    mod scene;
    mod sessions;
    mod time;
}
