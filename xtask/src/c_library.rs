//! The C library as C users have it: `cargo xtask install-c PREFIX`, and its examples compiled and
//! run against what that installs. The interface itself is tested in `ffi/tests`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{fs, io};

use crate::install;
use crate::report::Suite;
use crate::test::{cargo, target_directory, workspace_root};

pub(crate) const HELP: &str = "\
  install-c PREFIX
          Build the C library and install it with its header and kvx.pc, which pkg-config reads:
          PREFIX/lib, PREFIX/include, PREFIX/lib/pkgconfig.
";

/// The library's versioned name, as its build script links it.
const SONAME: &str = "libkvx.so.0";

/// The chore.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let [prefix] = arguments else {
        eprint!("cargo xtask install-c takes a folder\n\n{HELP}");
        return ExitCode::from(2);
    };
    match install_to(Path::new(prefix)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn install_to(prefix: &Path) -> io::Result<()> {
    let status = cargo(&["build", "--release", "--package", "kvx-ffi"]).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cargo build: {status}")));
    }
    let [lib, include, pkgconfig] =
        ["lib", "include", "lib/pkgconfig"].map(|folder| prefix.join(folder));
    for folder in [&lib, &include, &pkgconfig] {
        fs::create_dir_all(folder)?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let library = format!("libkvx.so.{version}");
    // Not over the old one, which programs may have mapped.
    for name in [library.as_str(), SONAME, "libkvx.so"] {
        match fs::remove_file(lib.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::copy(target_directory().join("release/libkvx.so"), lib.join(&library))?;
    symlink(&library, lib.join(SONAME))?;
    symlink(SONAME, lib.join("libkvx.so"))?;
    let sources = workspace_root().join("ffi");
    fs::copy(sources.join("include/kvx.h"), include.join("kvx.h"))?;
    let described = fs::read_to_string(sources.join("kvx.pc.in"))?;
    let prefix = prefix.canonicalize()?;
    let described =
        described.replace("@PREFIX@", &prefix.display().to_string()).replace("@VERSION@", version);
    fs::write(pkgconfig.join("kvx.pc"), described)
}

/// The examples, compiled as their first lines say, with AddressSanitizer besides, and run.
pub(crate) fn examples() -> Suite {
    const TEST: &str = "sender and receiver";
    let mut suite = Suite::new("C examples");
    if let Err(reason) = install::provide("pkg-config", "pkg-config") {
        suite.skip(TEST, &reason);
        return suite;
    }
    println!("\n== C examples");
    match try_examples(&target_directory().join("c")) {
        Ok(said) => {
            print!("{said}");
            suite.passed += 1;
        }
        Err(reason) => suite.fail(TEST, &reason),
    }
    suite
}

fn try_examples(prefix: &Path) -> Result<String, String> {
    install_to(prefix).map_err(|error| format!("install-c: {error}"))?;
    let pkgconfig = prefix.join("lib/pkgconfig");
    let mut flags = Command::new("pkg-config");
    let flags =
        output(flags.args(["--cflags", "--libs", "kvx"]).env("PKG_CONFIG_PATH", pkgconfig))?;
    let sources = workspace_root().join("examples/c");
    for program in ["sender", "receiver"] {
        let mut compiler = Command::new("cc");
        compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address"]);
        compiler.arg(sources.join(format!("{program}.c"))).args(flags.split_whitespace());
        output(compiler.arg("-o").arg(prefix.join(program)))?;
    }
    let command = |program: &str| {
        let mut command = Command::new(prefix.join(program));
        command.env("LD_LIBRARY_PATH", prefix.join("lib")).env("KVX_LOG", "kvx=warn");
        command
    };
    let mut sender = command("sender");
    let mut sender = sender.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let mut address = String::new();
    if let Some(stdout) = sender.stdout.take() {
        BufReader::new(stdout).read_line(&mut address).map_err(|error| error.to_string())?;
    }
    let received = output(command("receiver").arg(address.trim()));
    if received.is_err() {
        // It would wait for its receiver until the deadline; it may have ended, too.
        let _ = sender.kill();
    }
    let sent = sender.wait().map_err(|error| error.to_string())?;
    let received = received?;
    if sent.success() { Ok(received) } else { Err(format!("sender: {sent}")) }
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
