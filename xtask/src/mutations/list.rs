//! The list of mutations: the files of `tests/mutations`, each about one part of the code.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::suites::SuiteName;

/// All mutations, by name.
#[derive(Debug)]
pub(super) struct List {
    mutations: BTreeMap<String, Mutation>,
}

/// One way to break the code.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Mutation {
    /// The name of its file in the list, without the ending.
    #[serde(skip)]
    chapter: String,
    /// What the broken code does wrong, in words joined by dashes.
    pub(super) name: String,
    /// The promise of ARCHITECTURE or the section of PROTOCOL that it breaks.
    breaks: String,
    /// The file, from the root of the workspace.
    pub(super) file: PathBuf,
    /// Text that the file has exactly once.
    find: String,
    /// What stands there in the broken code.
    replace: String,
    /// The suites that must notice, each of them; at least one.
    #[serde(rename = "noticed-by")]
    pub(super) suites: Vec<SuiteName>,
}

/// One file of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mutation: Vec<Mutation>,
}

impl List {
    /// Reads all files of a directory.
    pub(super) fn load(directory: &Path) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", directory.display());
        let mut mutations = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = fs::read_to_string(&path).map_err(failed)?;
                let chapter = path.file_stem().unwrap_or_default().to_string_lossy();
                read(&chapter, &text, &mut mutations)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        Ok(Self { mutations })
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Mutation> {
        self.mutations.values()
    }

    /// Those whose names begin in one of these ways, or that are in a file of such a name; all,
    /// where none is given.
    pub(super) fn choose(&self, names: &[String]) -> Result<Vec<&Mutation>, String> {
        let is_meant = |name: &String, mutation: &Mutation| {
            mutation.chapter == *name || mutation.name.starts_with(&**name)
        };
        if let Some(name) = names.iter().find(|name| !self.all().any(|one| is_meant(name, one))) {
            return Err(format!("no mutation is called {name}; --list shows them"));
        }
        let is_chosen =
            |one: &&Mutation| names.is_empty() || names.iter().any(|name| is_meant(name, one));
        Ok(self.all().filter(is_chosen).collect())
    }
}

impl Mutation {
    /// The file as it is under `root`, broken.
    pub(super) fn apply_at(&self, root: &Path) -> Result<String, String> {
        let text = fs::read_to_string(root.join(&self.file))
            .map_err(|error| format!("{}: {error}", self.file.display()))?;
        self.apply(&text)
    }

    fn apply(&self, text: &str) -> Result<String, String> {
        match text.matches(&*self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            count => Err(format!(
                "no longer applies: {} has its text {count} times, not once",
                self.file.display()
            )),
        }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suites: Vec<String> = self.suites.iter().map(|suite| suite.to_string()).collect();
        write!(f, "{}\n    breaks {}; noticed by {}", self.name, self.breaks, suites.join(", "))
    }
}

/// Adds the mutations of one file.
fn read(
    chapter: &str,
    text: &str,
    mutations: &mut BTreeMap<String, Mutation>,
) -> Result<(), String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    for mut mutation in file.mutation {
        chapter.clone_into(&mut mutation.chapter);
        let name = mutation.name.clone();
        let is_dashed = name
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if name.is_empty() || !is_dashed {
            return Err(format!("`{name}`: a name is made of words joined by dashes"));
        }
        if mutation.suites.is_empty() || mutation.find == mutation.replace {
            return Err(format!("`{name}` changes nothing, or no suite is to notice it"));
        }
        if mutations.insert(name.clone(), mutation).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "
[[mutation]]
name = 'numbers-are-wrong'
breaks = 'promise 1'
file = 'a/b.rs'
find = 'two + two'
replace = 'five'
noticed-by = ['kvx-core lib sums::', 'kvx-core protocol']
";

    fn list(text: &str) -> Result<List, String> {
        let mut mutations = BTreeMap::new();
        read("sums", text, &mut mutations).map(|()| List { mutations })
    }

    #[test]
    fn a_mutation_applies_where_its_text_stands_exactly_once() {
        let list = list(ONE).unwrap();
        let mutation = list.all().next().unwrap();
        assert_eq!(mutation.apply("let x = two + two;"), Ok("let x = five;".to_owned()));
        assert!(mutation.apply("let x = two - two;").is_err());
        assert!(mutation.apply("two + two + two + two").is_err());
    }

    #[test]
    fn mutations_are_chosen_by_the_beginnings_of_their_names_or_by_their_file() {
        let other = ONE.replace("numbers", "letters");
        let list = list(&format!("{ONE}{other}")).unwrap();
        assert_eq!(list.choose(&[]).unwrap().len(), 2);
        assert_eq!(list.choose(&["letters".to_owned()]).unwrap().len(), 1);
        assert_eq!(list.choose(&["sums".to_owned()]).unwrap().len(), 2);
        assert!(list.choose(&["letters".to_owned(), "words".to_owned()]).is_err());
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused() {
        assert!(list(&format!("{ONE}{ONE}")).is_err(), "a name twice");
        assert!(list(&ONE.replace("'five'", "'two + two'")).is_err(), "no change");
        assert!(list(&ONE.replace("numbers-", "Numbers ")).is_err(), "not a name");
        assert!(list(&ONE.replace("kvx-core lib sums::", "kvx-core")).is_err(), "not a suite");
        assert!(list(&ONE.replace("breaks", "brakes")).is_err(), "an unknown field");
    }
}
