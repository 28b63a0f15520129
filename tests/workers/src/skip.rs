//! Tests that this machine cannot run: counted as skipped, never as passed.

use std::io::Write;

/// Counts the test of this name as skipped: see CONTRIBUTING.md.
pub fn skip(test: &str, reason: &str) {
    let line = format!("KVX-SKIP {test}: {reason}");
    println!("{line}");
    if let Some(path) = std::env::var_os("KVX_SKIP_LOG") {
        let mut log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}
