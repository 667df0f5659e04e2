//! The place of a cgroup below the prefix.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Length of a component: that of a pod's or container's name.
const NAME_BYTES_MAX: usize = 63;
/// Components of a prefix: `machine.slice/site/wherry` and one to spare.
const PREFIX_DEPTH_MAX: usize = 4;
/// The only plain name that is a file of every v1 cgroup.
const TASKS: &str = "tasks";
/// Its folder; `_` cannot be in a name.
const TASKS_FOLDER: &str = "tasks_";

/// `POD` or `POD/CONTAINER`. Holds only names that are safe as folders of
/// any hierarchy: the kernel's own files have a `.` or `_` in theirs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath {
    pod: String,
    container: Option<String>,
}

impl CgroupPath {
    /// A pod's cgroup.
    ///
    /// # Errors
    /// [`Error::Name`] when `pod` is not a plain name.
    pub fn pod(pod: &str) -> Result<Self, Error> {
        Ok(Self { pod: name(pod)?, container: None })
    }

    /// A container's cgroup, below its pod's.
    ///
    /// # Errors
    /// [`Error::Name`] when one of the two is not a plain name.
    pub fn container(pod: &str, container: &str) -> Result<Self, Error> {
        Ok(Self { pod: name(pod)?, container: Some(name(container)?) })
    }

    #[must_use]
    pub fn is_container(&self) -> bool {
        self.container.is_some()
    }

    /// Its pod's cgroup; itself if it is one.
    #[must_use]
    pub fn to_pod(&self) -> Self {
        Self { pod: self.pod.clone(), container: None }
    }

    /// Its folder below `prefix`.
    pub(crate) fn below(&self, prefix: &Path) -> PathBuf {
        let mut path = prefix.join(to_folder(&self.pod));
        path.extend(self.container.as_deref().map(to_folder));
        path
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.container {
            Some(container) => write!(f, "{}/{container}", self.pod),
            None => f.write_str(&self.pod),
        }
    }
}

/// Checks a prefix: it comes from a configuration file, and may lie below a
/// slice of systemd's.
///
/// # Errors
/// [`Error::Prefix`].
pub(crate) fn check_prefix(prefix: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    let part_ok = |part: &str| {
        (1..=NAME_BYTES_MAX).contains(&part.len())
            && !part.starts_with('.')
            && part.bytes().all(plain)
    };
    let depth_ok = prefix.split('/').count() <= PREFIX_DEPTH_MAX;
    if depth_ok && prefix.split('/').all(part_ok) {
        Ok(())
    } else {
        Err(Error::Prefix(prefix.chars().take(80).collect()))
    }
}

/// The name that a folder stands for.
pub(crate) fn of_folder(folder: &str) -> &str {
    if folder == TASKS_FOLDER { TASKS } else { folder }
}

fn to_folder(name: &str) -> &str {
    if name == TASKS { TASKS_FOLDER } else { name }
}

fn name(text: &str) -> Result<String, Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let length_ok = (1..=NAME_BYTES_MAX).contains(&text.len());
    if length_ok && !text.starts_with('-') && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(Error::Name(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(64);
        for bad in
            ["", ".", "..", "a/b", "/a", "a\0", "a\n", "-a", "A", "cgroup.procs", "a_b", "ä", &long]
        {
            assert!(CgroupPath::pod(bad).is_err(), "{bad:?}");
            assert!(CgroupPath::container("web-1", bad).is_err(), "{bad:?}");
        }
        assert!(CgroupPath::pod(&"x".repeat(63)).is_ok());
    }

    #[test]
    fn a_container_called_tasks_has_a_folder_too() {
        let path = CgroupPath::container("web-1", "tasks").unwrap();
        let folder = path.below(Path::new("/p"));
        assert_eq!(folder, Path::new("/p/web-1/tasks_"));
        assert_eq!(of_folder("tasks_"), "tasks");
        assert_eq!(path.to_string(), "web-1/tasks");
        assert_eq!(path.to_pod(), CgroupPath::pod("web-1").unwrap());
    }

    #[test]
    fn a_prefix_stays_below_the_mount() {
        for good in ["wherry", "wherry-test-1", "system.slice/wherry.service", "a/b/c/d"] {
            assert!(check_prefix(good).is_ok(), "{good}");
        }
        for bad in ["", "/wherry", "wherry/", "a//b", "..", "a/../b", ".", "a b", "a/b/c/d/e"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
