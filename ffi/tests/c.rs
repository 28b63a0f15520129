//! The interface as programs in C see it: each in `tests/c` is compiled against the header, linked
//! against the library and run, with AddressSanitizer too. Not a test of what the engine does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the library is. To test a package that has only a shared library, cargo does not make it.
fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        run(Command::new(cargo).args(["build", "--quiet", "--package", "kvx-ffi"]));
        let test = std::env::current_exe().unwrap();
        test.parent().unwrap().parent().unwrap().to_owned()
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}{complained}", output.status);
    said
}

/// Compiles a program of `tests/c`.
fn compile(compiler: &str, flags: &[&str], name: &str) -> PathBuf {
    let tag = flags.join("").replace(|c: char| !c.is_alphanumeric(), "");
    let program = libraries().join(format!("{}-{tag}", name.replace('.', "-")));
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"]).args(flags);
    command.arg("-I").arg(include).arg("-o").arg(&program).arg(source(name));
    command.arg("-L").arg(libraries()).arg("-lkvx").arg("-lpthread");
    run(&mut command);
    program
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", soname()).env("KVX_LOG", "kvx=warn");
    command
}

/// A folder in which the library has the name that programs ask for.
fn soname() -> PathBuf {
    let folder = libraries().join("kvx-soname");
    std::fs::create_dir_all(&folder).unwrap();
    let link = folder.join("libkvx.so.0");
    // Made anew by each test, which may run at once: any of them will do.
    let _ = std::os::unix::fs::symlink(libraries().join("libkvx.so"), &link);
    assert!(link.exists(), "{} leads nowhere", link.display());
    folder
}

fn plainly(name: &str) {
    run(&mut command(&compile("cc", &["-std=c11"], name)));
}

#[test]
fn bytes_move_and_notifications_come() {
    plainly("moves.c");
}

#[test]
fn regions_are_published_and_read_with_a_notification() {
    plainly("publish.c");
}

#[test]
fn a_session_moves_blocks_layer_by_layer() {
    plainly("session.c");
}

#[test]
fn connections_that_are_cut_raise_no_signal() {
    plainly("cuts.c");
}

#[test]
fn bad_arguments_and_handles_are_errors() {
    plainly("refuses.c");
}

/// By AddressSanitizer, which sees the program's own accesses, and what system and library calls do
/// with its memory and the library's. (Valgrind has no vDSO, which rustix looks for.)
#[test]
fn nothing_is_read_or_written_that_is_not_there() {
    let flags = ["-std=c11", "-fsanitize=address", "-DSMALL"];
    for name in ["moves.c", "publish.c", "refuses.c", "session.c", "cuts.c"] {
        run(command(&compile("cc", &flags, name))
            .env("ASAN_OPTIONS", "allocator_may_return_null=1"));
    }
}

#[test]
fn the_header_is_cpp_too() {
    run(&mut command(&compile("c++", &["-std=c++11"], "links.cc")));
}
