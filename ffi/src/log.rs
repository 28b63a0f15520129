//! What the engine logs, on standard error. A program in Rust chooses where; one in C cannot.

use std::io;
use std::sync::Once;

use ::engine::Config;
use tracing_subscriber::EnvFilter;

/// Logs what the first engine's options say, from then on.
pub(crate) fn begin(config: &Config) {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        // Options are checked before: a filter that is none logs nothing.
        if let Ok(filter) = EnvFilter::try_new(config.log_filter()) {
            let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
            // One that is there already is somebody else's choice.
            let _ = subscriber.with_ansi(false).with_writer(io::stderr).try_init();
        }
    });
}
