//! The transports of this build: a module each, which says what the machine has for it.

mod tcp;

use kvx::transport::TransportKind;

use super::configuration::Configuration;
use super::files::Files;
use super::finding::{Finding, Section};
use crate::arguments::TRANSPORTS;

/// A section for each transport of this build.
pub(super) fn sections(files: &dyn Files, configuration: &Configuration) -> Vec<Section> {
    let kinds =
        TRANSPORTS.into_iter().filter_map(|name| name.parse().ok().map(|kind| (name, kind)));
    let sections = kinds.map(|(name, kind)| {
        let mut findings = vec![chosen(name, configuration)];
        let title = match kind {
            TransportKind::Tcp => {
                findings.extend(tcp::findings(files));
                "Transport tcp"
            }
            // What it needs stands in the section on the host.
            TransportKind::Shm => "Transport shm",
            // One that this command does not know yet has no more to say.
            _ => "Transport",
        };
        Section::new(title, findings)
    });
    sections.collect()
}

/// Whether engines may use the transport of this name.
pub(super) fn is_allowed(name: &str, configuration: &Configuration) -> bool {
    let allowed = configuration.value("transports").unwrap_or_default();
    allowed.split(',').any(|allowed| allowed == name)
}

fn chosen(name: &'static str, configuration: &Configuration) -> Finding {
    match is_allowed(name, configuration) {
        true => Finding::ok(name, "in this build, and allowed by KVX_TRANSPORTS"),
        false => {
            let advice = format!("To use it, name {name} in KVX_TRANSPORTS.");
            Finding::note(name, "in this build, but not allowed by KVX_TRANSPORTS", advice)
        }
    }
}
