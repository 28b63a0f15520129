//! Whether an engine starts with this configuration: one is started, and ended again.

use std::io::ErrorKind;

use kvx::Engine;
use kvx::error::{Cause, Error};
use rustix::io::Errno;

use super::configuration::Configuration;
use super::finding::Finding;

const NAME: &str = "start";

/// What is known of an engine that has started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    /// Lanes that it asks for to each peer.
    pub(super) lanes: u16,
}

/// Starts an engine and ends it.
pub(super) fn start(configuration: &Configuration) -> (Option<Started>, Finding) {
    let Some(config) = configuration.valid() else {
        let found = "not tried, for the configuration is invalid";
        let advice = "Correct the settings named above, and run kvx doctor again.";
        return (None, Finding::problem(NAME, found, advice));
    };
    match Engine::new(config.clone()) {
        Ok(engine) => {
            let finding = listening(&engine);
            let started = Started { lanes: engine.lanes() };
            engine.shutdown();
            (Some(started), finding)
        }
        Err(error) => (None, Finding::problem(NAME, error.to_string(), advice(&error))),
    }
}

fn listening(engine: &Engine) -> Finding {
    let told: Vec<_> = engine.addresses().iter().map(ToString::to_string).collect();
    let local = engine.local_addr();
    let found = format!("an engine starts on {local}; peers are told {}", told.join(", "));
    if engine.addresses().iter().any(|address| !address.ip().to_canonical().is_loopback()) {
        return Finding::ok(NAME, found);
    }
    let found = format!("{found}, which is reached from this host alone");
    let advice = "For peers on other hosts, set KVX_BIND to 0.0.0.0 or to an address of this host, \
                  and KVX_AUTH_KEY_FILE to a key that all hosts share.";
    Finding::note(NAME, found, advice)
}

fn advice(error: &Error) -> &'static str {
    let Cause::Io { action, source } = &error.cause else {
        return "Change the setting that the error names, and run kvx doctor again.";
    };
    match source.kind() {
        ErrorKind::AddrInUse => {
            "End what listens there, perhaps an engine that runs already, or set KVX_BIND to \
             another port; port 0 lets the system choose."
        }
        ErrorKind::AddrNotAvailable => {
            "Set KVX_BIND to an address that this host has (ip addr shows them), or to 0.0.0.0."
        }
        ErrorKind::PermissionDenied if action.starts_with("bind") => {
            "Set KVX_BIND to a port from 1024 on: those below take CAP_NET_BIND_SERVICE."
        }
        _ if source.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
            "Raise the limit of open files (ulimit -n; LimitNOFILE= in a systemd unit)."
        }
        _ => "Mend what the system's error names, and run kvx doctor again.",
    }
}
