//! What users are told by their engines: each event goes to the check of what it promises.

use crate::error::Side;
use crate::proto::Event;
use crate::testing::sim::World;

impl World {
    pub(crate) fn user_hears(&mut self, engine: usize, remote: usize, serial: u64, event: Event) {
        if self.setting.is_hostile(engine) {
            return self.villain_hears(engine, remote, serial, event);
        }
        let hostile = self.setting.is_hostile(remote);
        match event {
            Event::TransferEnded { transfer, outcome, fence } => {
                self.transfer_ended(engine, remote, transfer, outcome, fence);
            }
            Event::NotificationSettled(id, fate, _) => self.note_settled(serial, id, &fate),
            Event::Notification(bytes) => self.hear_notification(engine, remote, serial, &bytes),
            Event::Granted(received) => self.granted(engine, remote, *received),
            Event::LayersArrived(grant, layers) => {
                self.layers_arrived(engine, serial, grant, layers);
            }
            Event::SessionEnded(grant, _, payload) => {
                self.session_complete(engine, serial, grant, &payload);
            }
            Event::SessionAborted { session, grant, cause, here } => match (here, grant) {
                (Side::Receiver, Some(grant)) => self.receiver_aborted(serial, grant, &cause),
                (Side::Receiver, None) => assert!(hostile, "senders here know their grants"),
                (Side::Sender, _) => self.sender_aborted(engine, remote, session),
            },
            Event::Disconnected => {
                self.note(|| format!("{engine} is disconnected from {remote}"));
                if let Some(link) = self.engines[engine].links.get_mut(&remote) {
                    link.control = None;
                }
            }
            Event::Suspect(_) => self.count_end("suspect".to_owned()),
            Event::Recovered => self.count_end("recovered".to_owned()),
            Event::LaneLost(_) => self.count_end("lane lost".to_owned()),
            Event::SessionSettled(..) => self.count_end("session settled".to_owned()),
            Event::Ready => self.note(|| format!("{engine} goes on with {remote}")),
            Event::RegionsListed { question, regions } => {
                self.regions_listed(engine, remote, serial, question, regions);
            }
            Event::DirectoryPut(..)
            | Event::DirectoryAsked { .. }
            | Event::DirectoryAnswered { .. } => assert!(hostile, "nobody asks a directory"),
            Event::OpenLane(_) | Event::CloseLane(_) | Event::Dead(_) => {
                unreachable!("engines deal with these")
            }
        }
    }
}
