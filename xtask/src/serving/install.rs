//! What the serving engines are installed in, once: Python environments and a tiny model, in the
//! user's cache, where they outlive the target directory. And kvx in them, each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::install::{install, provide, provide_library};
use crate::python;
use crate::test::{target_directory, workspace_root};

/// The Pythons for which all requirements have wheels.
const PYTHONS: [&str; 3] = ["3.11", "3.12", "3.13"];

/// The environment of this name, with its requirements installed. Returns its Python.
///
/// # Errors
/// What could not be installed, and why.
pub(super) fn environment(name: &str) -> Result<PathBuf, String> {
    // vLLM's kernels are linked to it.
    provide_library("libnuma.so.1", "libnuma1")?;
    let folder = cache()?.join(name);
    let python = folder.join("bin/python");
    let requirements = workspace_root().join(format!("tests/serving/requirements/{name}.txt"));
    let wanted = read(&requirements)?;
    // Written last: an environment that has it is whole.
    let stamp = folder.join("kvx-requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("\n== serving: installing {name} in {} (7 GB)", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    run(Command::new(suited_python()?).args(["-m", "venv"]).arg(&folder))?;
    let mut install = pip(&python);
    install.args(["install", "--quiet", "--no-cache-dir", "--no-deps", "--requirement"]);
    run(install.arg(&requirements))?;
    write(&stamp, &wanted)?;
    Ok(python)
}

/// Builds the wheel of kvx from this workspace, and installs it. Its own requirements are there.
pub(super) fn kvx(interpreter: &Path) -> Result<(), String> {
    println!("\n== serving: building and installing kvx");
    let wheels = target_directory().join("serving/wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels).map_err(|error| format!("{}: {error}", wheels.display()))?;
    }
    run(&mut python::wheel_command(interpreter, &wheels))?;
    let wheel = python::wheel_in(&wheels);
    let wheel = wheel.ok_or_else(|| format!("there is no wheel in {}", wheels.display()))?;
    let mut install = pip(interpreter);
    install.args(["install", "--quiet", "--no-cache-dir", "--no-deps", "--force-reinstall"]);
    run(install.arg(wheel))
}

/// What Mooncake's own engine is linked to.
pub(super) fn libraries_of_mooncake() -> Result<(), String> {
    provide_library("libibverbs.so.1", "libibverbs1")?;
    provide_library("libcurl.so.4", "libcurl4")
}

/// The tiny model; makes it where it is not, with the torch of an environment.
pub(super) fn model(python: &Path) -> Result<PathBuf, String> {
    let folder = cache()?.join("tiny-model");
    let program = super::examples().join("tiny_model.py");
    let wanted = read(&program)?;
    let stamp = folder.join("kvx-made-by.py");
    if fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == wanted) {
        return Ok(folder);
    }
    run(Command::new(python).arg(&program).arg(&folder))?;
    write(&stamp, &wanted)?;
    Ok(folder)
}

fn cache() -> Result<PathBuf, String> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let caches = of("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(of("HOME")?).join(".cache")));
    let cache = caches.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("kvx/serving");
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    Ok(cache)
}

/// A Python of such a version; Debian's is installed where there is none.
fn suited_python() -> Result<PathBuf, String> {
    let find = || PYTHONS.into_iter().find_map(python::find);
    if let Some(python) = find() {
        return Ok(python);
    }
    provide("python3", "python3")?;
    install("python3-venv")?;
    find().ok_or_else(|| format!("there is no Python {}", PYTHONS.join(" or ")))
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check"]);
    command
}

/// Runs a command with its output passed through.
fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(|text| text.to_string_lossy()).collect();
    let said = format!("{program} {}", arguments.join(" "));
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{said}: {status}")),
        Err(error) => Err(format!("{said}: {error}")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, content: &str) -> Result<(), String> {
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}
