//! A copy of the workspace, in which the code may be broken.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

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
