//! Damage to bytes under way, where the protocol can see it: in what frames and messages begin
//! with, and anywhere in a handshake. Checksums of payload are not agreed on in this version.

use crate::testing::sim::network::{ConnId, Role};
use crate::testing::sim::{Fault, World};

impl World {
    /// The next bytes towards this end that can be damaged will be.
    pub(crate) fn arm_garbling(&mut self, id: ConnId, to: usize) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.pipes[to].garble = true;
        }
    }

    /// Damages these bytes, which one call sends, if they begin with something that can be damaged.
    pub(super) fn garble(&mut self, id: ConnId, from: usize, bytes: &mut [u8]) -> bool {
        let draw = self.random.bits();
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let fault = match conn.ends[from].as_ref().map(|end| &end.role) {
            Some(Role::Control(_)) => {
                garble_message(bytes, draw);
                Fault::GarbledControl
            }
            Some(Role::Lane(_)) if bytes.len() >= 8 && bytes.starts_with(b"KVXF") => {
                // Magic, kind, or the reserved field.
                let at = [0, 1, 2, 3, 4, 6, 7][draw as usize % 7];
                bytes[at] ^= 0x80 | (draw >> 32) as u8;
                Fault::GarbledFrame
            }
            Some(Role::Lane(_) | Role::Mute) | None => return false,
            Some(_) => {
                bytes[draw as usize % bytes.len()] ^= 1 | (draw >> 32) as u8;
                Fault::GarbledHandshake
            }
        };
        conn.tainted = true;
        conn.pipes[1 - from].garble = false;
        self.count(fault);
        true
    }
}

/// Damages the header of a control message: whatever field it is, the message must not pass for
/// another one.
fn garble_message(bytes: &mut [u8], draw: u64) {
    let noise = 0x80 | (draw >> 32) as u8;
    match draw % 5 {
        // A length beyond all bounds.
        0 => bytes[3] ^= noise,
        // A type that nobody knows.
        1 => bytes[5] ^= noise,
        // The reserved field.
        2 => bytes[6 + draw as usize / 8 % 2] ^= noise,
        // A number in the sequence that is not due.
        3 => bytes[14] ^= noise,
        // An acknowledgement of what was never sent.
        _ => bytes[22] ^= noise,
    }
}
