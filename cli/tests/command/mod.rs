//! How tests run the `kvx` command.

use std::process::{Command, Output, Stdio};

/// A `kvx` command with these arguments, untouched by the environment's options.
pub(crate) fn kvx(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvx"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVX_") {
            command.env_remove(name);
        }
    }
    command.arg(name).args(arguments).stdin(Stdio::null());
    command
}

/// Exit status, standard output and standard error.
pub(crate) fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code().unwrap(), stdout, stderr)
}
