//! Tools and libraries that tests need and machines lack. Failing to get one is a skip, with the
//! reason; the tests that need it skip for themselves.

use std::process::{Command, Output, Stdio};

use crate::report::Suite;

/// The tools by which tests make network namespaces and cut links in them, and compile C and C++;
/// and their Debian packages.
const TOOLS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("nft", "nftables"), ("cc", "gcc"), ("c++", "g++")];

/// Installs what is missing of the tools, where this is Debian and the user is root. The suite
/// stays empty when nothing was missing.
pub(crate) fn tools() -> Suite {
    let mut suite = Suite::new("tools");
    for (tool, package) in TOOLS {
        if let Err(reason) = provide(tool, package) {
            suite.skip(package, &reason);
        }
    }
    suite
}

/// Sees that a tool is there: installs its package where it is not.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn provide(tool: &str, package: &str) -> Result<(), String> {
    if is_installed(tool) {
        return Ok(());
    }
    println!("== tools: installing {package} for {tool}");
    install(package)?;
    if is_installed(tool) {
        return Ok(());
    }
    Err(format!("{package} is installed, but {tool} does not start"))
}

/// Sees that a shared library is there: installs its package where it is not.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn provide_library(library: &str, package: &str) -> Result<(), String> {
    if is_linked(library) {
        return Ok(());
    }
    println!("== tools: installing {package} for {library}");
    install(package)?;
    if is_linked(library) {
        return Ok(());
    }
    Err(format!("{package} is installed, but there is no {library}"))
}

/// Whether the dynamic linker finds a library.
fn is_linked(library: &str) -> bool {
    // Not on the PATH of every user.
    let programs = ["ldconfig", "/sbin/ldconfig"];
    let mut listings = programs.iter().filter_map(|ldconfig| {
        Command::new(ldconfig).arg("-p").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
    });
    listings.next().is_some_and(|listing| {
        let listing = String::from_utf8_lossy(&listing.stdout);
        listing.lines().any(|line| line.split_whitespace().next() == Some(library))
    })
}

fn is_installed(tool: &str) -> bool {
    let mut version = Command::new(tool);
    // `ip -V`, `nft -v`, `valgrind --version`, ...: each takes another's for an error, but starts.
    version.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok()
}

/// Installs a Debian package, as root.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn install(package: &str) -> Result<(), String> {
    if !is_root() {
        return Err(format!("{package} is not installed, and only root can install it"));
    }
    // The lists may be missing or old; a failed update still leaves a chance.
    let _ = apt_get(&["update"]);
    apt_get(&["install", "--yes", "--no-install-recommends", package])
}

fn apt_get(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("apt-get {}: {}", arguments.join(" "), last_line(&output))),
        Err(error) => Err(format!("apt-get: {error}")),
    }
}

fn last_line(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| output.status.to_string(), str::to_owned)
}

fn is_root() -> bool {
    // The owner of one's own /proc entry is the effective user, which std does not tell.
    std::fs::metadata("/proc/self")
        .is_ok_and(|entry| std::os::linux::fs::MetadataExt::st_uid(&entry) == 0)
}
