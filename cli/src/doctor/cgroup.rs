//! Where the control group of this process lies in the file system, version 1 or 2 (cgroups(7)).
//! Not what its files mean.

use super::files::Files;

/// What a group limits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Controller {
    Memory,
    Cpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The group of this process for one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) version: Version,
    /// The group's own directory and those above it, up to where the hierarchy, as far as it can be
    /// seen, is mounted; a limit of any holds.
    directories: Vec<String>,
}

impl Group {
    /// Finds the group of this process.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(super) fn find(files: &dyn Files, controller: Controller) -> Result<Self, String> {
        let groups = files.read("/proc/self/cgroup")?;
        let mounts = files.read("/proc/self/mountinfo")?;
        let name = controller.name();
        let found = find(&groups, &mounts, name);
        found.ok_or_else(|| format!("no control group for {name} is mounted here"))
    }

    /// What `limit` makes of each directory that has this file. One without has no such limit: the
    /// root of all groups, or a group for which the controller is not enabled.
    ///
    /// # Errors
    /// Why a limit cannot be read, although there may be one.
    pub(super) fn limits<T>(
        &self,
        files: &dyn Files,
        file: &str,
        mut limit: impl FnMut(&str) -> Result<Option<T>, String>,
    ) -> Result<Vec<T>, String> {
        let mut limits = Vec::new();
        for directory in &self.directories {
            let has_none = files.exists(directory) && !files.exists(&format!("{directory}/{file}"));
            if !has_none {
                limits.extend(limit(directory)?);
            }
        }
        Ok(limits)
    }
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }
}

/// A host may have both versions; a controller is in one of them.
fn find(groups: &str, mounts: &str, controller: &str) -> Option<Group> {
    group_v1(groups, mounts, controller).or_else(|| group_v2(groups, mounts))
}

fn group_v1(groups: &str, mounts: &str, controller: &str) -> Option<Group> {
    let named = |list: &str| list.split(',').any(|name| name == controller);
    let path = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        named(controllers).then_some(path)
    })?;
    let mount = mounts
        .lines()
        .filter_map(Mount::parse)
        .find(|mount| mount.kind == "cgroup" && named(mount.options))?;
    Some(mount.group(Version::V1, path))
}

fn group_v2(groups: &str, mounts: &str) -> Option<Group> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mounts.lines().filter_map(Mount::parse).find(|mount| mount.kind == "cgroup2")?;
    Some(mount.group(Version::V2, path))
}

/// A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    /// What of the file system is mounted.
    root: &'a str,
    /// Where.
    at: &'a str,
    kind: &'a str,
    /// Those of the file system.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, of_file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut of_file_system = of_file_system.split(' ');
        Some(Self {
            root: mount.next()?,
            at: mount.next()?,
            kind: of_file_system.next()?,
            options: of_file_system.nth(1)?,
        })
    }

    /// The group at this path of the hierarchy. A container often sees its own group alone: then
    /// the path, if it is told as the host has it, begins with what is mounted, or cannot be
    /// followed at all, and the mount itself is the group.
    fn group(&self, version: Version, path: &str) -> Group {
        let root = self.root.trim_end_matches('/');
        let below = path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let below = below.unwrap_or_default();
        let names: Vec<_> = below.split('/').filter(|name| !name.is_empty()).collect();
        let names = if names.contains(&"..") { &[] } else { &names[..] };
        let directory = |count: usize| {
            let mut directory = self.at.to_owned();
            for name in &names[..count] {
                directory.push('/');
                directory.push_str(name);
            }
            directory
        };
        let directories = (0..=names.len()).rev().map(directory).collect();
        Group { version, directories }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machines::{CONTAINER, NOTHING, ROOT_BOX};
    use super::*;

    #[test]
    fn a_group_of_version_1_is_where_its_controller_is_mounted() {
        let group = Group::find(&ROOT_BOX, Controller::Memory).unwrap();
        assert_eq!(group.version, Version::V1);
        let expected =
            ["/sys/fs/cgroup/memory/jobs/7", "/sys/fs/cgroup/memory/jobs", "/sys/fs/cgroup/memory"];
        assert_eq!(group.directories, expected);
        let cpu = Group::find(&ROOT_BOX, Controller::Cpu).unwrap();
        assert_eq!(cpu.directories, ["/sys/fs/cgroup/cpu,cpuacct"]);
    }

    #[test]
    fn a_container_with_a_group_namespace_sees_its_own_group_as_the_root() {
        let group = Group::find(&CONTAINER, Controller::Memory).unwrap();
        assert_eq!(
            (group.version, &group.directories[..]),
            (Version::V2, &["/sys/fs/cgroup".to_owned()][..])
        );
    }

    #[test]
    fn a_container_without_one_sees_its_group_mounted_and_the_path_of_the_host() {
        let mounts = "1 0 0:1 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let at = |groups| find(groups, mounts, "memory").unwrap().directories;
        let mount = "/sys/fs/cgroup/memory";
        assert_eq!(at("5:memory:/docker/ab\n"), [mount]);
        assert_eq!(at("5:memory:/docker/ab/x\n"), [&format!("{mount}/x"), mount]);
        assert_eq!(at("5:memory:/docker/abc\n"), [mount]);
        assert_eq!(at("5:memory:/../../etc\n"), [mount]);
    }

    #[test]
    fn odd_files_name_no_group() {
        for groups in ["", "5", "5:memory", "0::", "0::/\n"] {
            assert_eq!(find(groups, "1 2 3 - cgroup2\n", "memory"), None, "{groups:?}");
        }
        assert!(Group::find(&NOTHING, Controller::Cpu).is_err());
    }
}
