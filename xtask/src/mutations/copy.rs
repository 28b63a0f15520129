//! A copy of the workspace, in which the code may be broken.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::directory;
use crate::test::workspace_root;

/// A copy, and a directory for what is built in it. Both stay for the next time, so that only what
/// has changed since is built again.
#[derive(Debug)]
pub(super) struct Copy {
    root: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Makes or refreshes the copy of this number: the files that git tracks, and those that it
    /// neither tracks nor ignores.
    pub(super) fn make(number: usize) -> Result<Self, String> {
        let directory = directory().join(number.to_string());
        let copy = Self { root: directory.join("workspace"), target: directory.join("target") };
        copy.refresh().map_err(|error| format!("copying the workspace: {error}"))?;
        Ok(copy)
    }

    /// The root of the copied workspace.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a package.
    pub(super) fn folder(&self, package: &str) -> Result<PathBuf, String> {
        folder(&self.root, package)
    }

    /// Where what is built goes.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Runs `f` while `file` has other contents.
    pub(super) fn with<R>(
        &self,
        file: &Path,
        contents: &str,
        f: impl FnOnce() -> Result<R, String>,
    ) -> Result<R, String> {
        let path = self.root.join(file);
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let original = fs::read(&path).map_err(failed)?;
        fs::write(&path, contents).map_err(failed)?;
        let result = f();
        // Written, not moved back: cargo goes by the time of the last change.
        fs::write(&path, original).map_err(failed)?;
        result
    }

    fn refresh(&self) -> io::Result<()> {
        let from = workspace_root();
        let files = files_of(&from)?;
        for file in &files {
            let (contents, path) = (fs::read(from.join(file))?, self.root.join(file));
            // A file that has not changed keeps its time, and what was built of it.
            if fs::read(&path).ok().as_ref() != Some(&contents) {
                fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
                fs::write(&path, contents)?;
            }
        }
        remove_others(&self.root, &self.root, &files)
    }
}

/// What is read of a `Cargo.toml`.
#[derive(Debug, Deserialize)]
struct Manifest {
    package: Option<Package>,
    workspace: Option<Workspace>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Workspace {
    members: Vec<PathBuf>,
}

impl Manifest {
    fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("Cargo.toml");
        let text = fs::read_to_string(&path).map_err(|error| error.to_string());
        let manifest = text.and_then(|text| toml::from_str(&text).map_err(|e| e.to_string()));
        manifest.map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// The folder of a package of the workspace at `root`, which need not be called like the package.
fn folder(root: &Path, package: &str) -> Result<PathBuf, String> {
    let members = Manifest::read(root)?.workspace.map(|workspace| workspace.members);
    for member in members.unwrap_or_default() {
        let folder = root.join(member);
        if Manifest::read(&folder)?.package.is_some_and(|found| found.name == package) {
            return Ok(folder);
        }
    }
    Err(format!("the workspace has no package {package}"))
}

/// The files of the workspace, from its root.
fn files_of(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    // What was deleted and not committed is still listed.
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

/// Removes the files below `directory` that are not among `files`, such as one that a test wrote.
fn remove_others(root: &Path, directory: &Path, files: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(root, &path, files)?;
        } else if path.strip_prefix(root).is_ok_and(|file| !files.contains(file)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_whatever_its_folder_is_called() {
        let root = workspace_root();
        for (package, place) in
            [("xtask", "xtask"), ("kvx-workers", "tests/workers"), ("kvx-engine", "")]
        {
            assert_eq!(folder(&root, package), Ok(root.join(place)), "{package}");
        }
        assert!(folder(&root, "workers").is_err());
    }
}
