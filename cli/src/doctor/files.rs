//! The files in which Linux tells of itself, and of this process. Not what they mean.

use std::fs;
use std::io;
use std::path::Path;

/// Where text of the system comes from: the system itself, or in tests another one.
pub(super) trait Files {
    /// What a file holds.
    ///
    /// # Errors
    /// Why it cannot be read, with its name.
    fn read(&self, path: &str) -> Result<String, String>;

    /// What a symbolic link says.
    ///
    /// # Errors
    /// Why it cannot be read, with its name.
    fn link(&self, path: &str) -> Result<String, String>;

    /// The names in a directory, in order.
    ///
    /// # Errors
    /// Why it cannot be read, with its name.
    fn names(&self, path: &str) -> Result<Vec<String>, String>;

    /// Whether there is such a file; one that may not be looked for is none.
    fn exists(&self, path: &str) -> bool;
}

/// The system that this process runs on.
#[derive(Debug)]
pub(super) struct System;

impl Files for System {
    fn read(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| failed(path, &error))
    }

    fn link(&self, path: &str) -> Result<String, String> {
        let target = fs::read_link(path).map_err(|error| failed(path, &error))?;
        Ok(target.to_string_lossy().into_owned())
    }

    fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let entries = fs::read_dir(path).map_err(|error| failed(path, &error))?;
        let name = |entry: io::Result<fs::DirEntry>| match entry {
            Ok(entry) => Ok(entry.file_name().to_string_lossy().into_owned()),
            Err(error) => Err(failed(path, &error)),
        };
        let mut names = entries.map(name).collect::<Result<Vec<_>, _>>()?;
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }
}

fn failed(path: &str, error: &io::Error) -> String {
    format!("read {path}: {error}")
}

/// What a file holds that `parse` makes sense of.
///
/// # Errors
/// Why it cannot be read, or that it is not what was expected, with its name.
pub(super) fn parsed<T>(
    files: &dyn Files,
    path: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    let text = files.read(path)?;
    let odd = || format!("{path} says {:?}", text.chars().take(60).collect::<String>());
    parse(&text).ok_or_else(odd)
}
