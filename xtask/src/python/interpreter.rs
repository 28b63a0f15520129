//! Pythons of this machine, and virtual environments of theirs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::folder;

/// A virtual environment.
pub(super) struct Environment {
    folder: PathBuf,
}

impl Environment {
    /// Makes one of a Python's version anew, with these packages.
    ///
    /// # Errors
    /// There is no such Python here, or the packages cannot be had.
    pub(super) fn fresh(version: &str, name: &str, packages: &[String]) -> Result<Self, String> {
        let environment = Self { folder: folder().join(name) };
        let _ = std::fs::remove_dir_all(&environment.folder);
        environment.make(version)?;
        environment.install(packages)?;
        Ok(environment)
    }

    /// One that is left as it is if it was made for the same packages before.
    ///
    /// # Errors
    /// As [`Self::fresh`].
    pub(super) fn kept(version: &str, name: &str, packages: &[String]) -> Result<Self, String> {
        let environment = Self { folder: folder().join(name) };
        let made_for = environment.folder.join("made-for");
        let wanted = packages.join("\n");
        if std::fs::read_to_string(&made_for).is_ok_and(|found| found == wanted) {
            return Ok(environment);
        }
        let environment = Self::fresh(version, name, packages)?;
        std::fs::write(&made_for, wanted).map_err(|error| format!("{name}: {error}"))?;
        Ok(environment)
    }

    /// One that was made before.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn existing(name: &str) -> Result<Self, String> {
        let environment = Self { folder: folder().join(name) };
        if !environment.python().exists() {
            return Err(format!("there is no environment of Python {name}"));
        }
        Ok(environment)
    }

    /// Its interpreter.
    pub(super) fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// Runs a module in it.
    pub(super) fn module(&self, module: &str) -> Command {
        let mut command = Command::new(self.python());
        command.args(["-m", module]).stdin(Stdio::null());
        command
    }

    /// Installs packages, or what else pip takes.
    ///
    /// # Errors
    /// What pip complains of.
    pub(super) fn install(&self, packages: &[String]) -> Result<(), String> {
        println!("== python: installing {}", packages.join(" "));
        let mut pip = self.module("pip");
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
        must(&mut pip)
    }

    fn make(&self, version: &str) -> Result<(), String> {
        let python = find(version).ok_or_else(|| format!("there is no Python {version} here"))?;
        if let Some(parent) = self.folder.parent() {
            std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        must(Command::new(python).args(["-m", "venv"]).arg(&self.folder).stdin(Stdio::null()))
    }
}

/// An interpreter of this version: on the path, or one of pyenv's.
pub(crate) fn find(version: &str) -> Option<PathBuf> {
    let named = PathBuf::from(format!("python{version}"));
    let home = std::env::var_os("HOME").unwrap_or_default();
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map_or_else(|| Path::new(&home).join(".pyenv"), PathBuf::from);
    let versions = std::fs::read_dir(pyenv.join("versions"));
    let of_version = format!("{version}.");
    let kept = versions.into_iter().flatten().filter_map(Result::ok).filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(&of_version))
    });
    std::iter::once(named)
        .chain(kept.map(|entry| entry.path().join("bin/python")))
        .find(|python| is(python, version))
}

/// Whether it starts and is of this version, and able to make environments.
fn is(python: &Path, version: &str) -> bool {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let program = format!(
        "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != ({major}, {minor}))"
    );
    let mut command = Command::new(python);
    command.args(["-c", &program]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn must(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            Err(last.map_or_else(|| output.status.to_string(), str::to_owned))
        }
        Err(error) => Err(format!("does not start: {error}")),
    }
}
