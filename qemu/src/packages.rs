//! Gets Debian's packages of any architecture, unpacked, without touching the
//! system's own package configuration: apt runs with all of its state in the
//! cache. apt verifies signatures and digests; the digests stay beside what
//! was unpacked and are compared at each use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::Arch;
use crate::cache::{self, Cache};
use crate::tree::{self, Tree};

/// Beside a tree: a line `DIGEST  FILE` a package that was unpacked into it.
const PACKAGES: &str = "packages.sha256";

/// Why packages cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// What was unpacked.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A program cannot be started.
    #[error("cannot start {program}: rigs need apt and dpkg, as Debian has them")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed ({what}):\n{output}")]
    Failed {
        /// Its name.
        program: String,
        /// What it was to do.
        what: String,
        /// What it wrote.
        output: String,
    },
    /// What apt says cannot be understood.
    #[error("apt says nothing about {name} of {arch}: are Debian's sources configured here?")]
    Unknown {
        /// The package.
        name: String,
        /// Debian's name of the architecture.
        arch: &'static str,
    },
    /// A download is not what the index promised.
    #[error("{} has not the digest that apt's index gives", path.display())]
    Digest {
        /// The package file.
        path: PathBuf,
    },
    /// A file system error.
    #[error("{}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The folder that holds the unpacked files of Debian packages `names`, and
/// of all that they need when `with_dependencies`; fetched once, verified at
/// each call. Nothing is configured: maintainers' scripts do not run. The
/// folder belongs to everybody: copy from it, never write to it.
///
/// # Errors
/// No network at the first use, no such package, a digest that differs.
pub fn packages(arch: Arch, names: &[&str], with_dependencies: bool) -> Result<PathBuf, Error> {
    let tree = tree_of(arch, names, with_dependencies)?;
    tree.verify()?;
    Ok(tree.root())
}

/// As [`packages`], for whoever reads only a few files: each is verified when
/// it is read.
pub(crate) fn tree_of(arch: Arch, names: &[&str], dependencies: bool) -> Result<Tree, Error> {
    let cache = Cache::lock(arch)?;
    let mut wanted = names.to_vec();
    wanted.sort_unstable();
    let kind = if dependencies { "with dependencies" } else { "alone" };
    let key = tree::digest(format!("{} {kind}", wanted.join(" ")).as_bytes());
    let folder = cache.path(&format!("{}-{}", first_of(&wanted), &key[..12]));
    if folder.is_dir() {
        return Ok(Tree::open(&folder)?);
    }
    eprintln!("fetching for {arch}: {}", wanted.join(" "));
    let apt = Apt { arch, state: cache.path("apt") };
    apt.update()?;
    let mut found = apt.find(&wanted, dependencies)?;
    found.sort_unstable_by(|a, b| a.file.cmp(&b.file));
    unpack(&found, &folder)
}

/// A readable start for a folder's name.
fn first_of<'a>(names: &[&'a str]) -> &'a str {
    names.first().copied().unwrap_or("nothing")
}

/// A package file that apt fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fetched {
    file: PathBuf,
    digest: String,
}

/// Makes the folder whole, or not at all.
fn unpack(packages: &[Fetched], folder: &Path) -> Result<Tree, Error> {
    let part = folder.with_extension("part");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    if part.exists() {
        fs::remove_dir_all(&part).map_err(io(&part))?;
    }
    let root = part.join("root");
    fs::create_dir_all(&root).map_err(io(&root))?;
    let mut list = String::new();
    for package in packages {
        let file = package.file.as_path();
        let content = fs::read(file).map_err(io(file))?;
        if tree::digest(&content) != package.digest {
            return Err(Error::Digest { path: file.to_owned() });
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        list.push_str(&format!("{}  {name}\n", package.digest));
        run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&root), &name)?;
    }
    fs::write(part.join(PACKAGES), list).map_err(io(&part))?;
    Tree::seal(&part)?;
    fs::rename(&part, folder).map_err(io(folder))?;
    for package in packages {
        fs::remove_file(&package.file).map_err(io(&package.file))?;
    }
    Ok(Tree::open(folder)?)
}

/// apt with a state of its own.
#[derive(Debug)]
struct Apt {
    arch: Arch,
    state: PathBuf,
}

impl Apt {
    /// Fetches the indexes. One that fails is told, not fatal: the security
    /// index of a lesser architecture has been seen to lag behind its release.
    fn update(&self) -> Result<(), Error> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let path = self.state.join(folder);
            fs::create_dir_all(&path).map_err(|source| Error::Io { path, source })?;
        }
        // No package counts as installed.
        let path = self.state.join("status");
        fs::write(&path, "").map_err(|source| Error::Io { path, source })?;
        let mut command = self.command("apt-get");
        let output = start(command.arg("update"))?;
        if !output.status.success() {
            let text = both(&output);
            let first = text.lines().find(|line| line.starts_with("E:")).unwrap_or("apt-get");
            eprintln!("warning: not every package index could be had, going on: {first}");
        }
        Ok(())
    }

    /// Fetches them; what they need too, if told so.
    fn find(&self, names: &[&str], dependencies: bool) -> Result<Vec<Fetched>, Error> {
        let names = names.iter().map(|name| self.real_name(name)).collect::<Result<Vec<_>, _>>()?;
        // `install` is the only one that looks at what packages need.
        let verb: &[&str] = if dependencies {
            &["install", "--download-only", "--no-install-recommends", "--yes"]
        } else {
            &["download"]
        };
        let archives = self.state.join("cache/archives");
        let fetch = |more: &[&str]| {
            let mut command = self.command("apt-get");
            // Under `--print-uris` it says what it would verify.
            command.args(verb).args(more).args(&names).current_dir(&archives);
            run(&mut command, &names.join(" "))
        };
        let list = fetch(&["--print-uris"])?;
        fetch(&[])?;
        let found: Vec<_> = list.lines().filter_map(|line| uri_line(line, &archives)).collect();
        if found.is_empty() {
            let name = names.join(" ");
            return Err(Error::Unknown { name, arch: self.arch.debian() });
        }
        Ok(found)
    }

    /// A kernel's metapackage holds nothing but the name of the real one.
    fn real_name(&self, name: &str) -> Result<String, Error> {
        if !is_kernel_metapackage(name) {
            return Ok(name.to_owned());
        }
        let mut command = self.command("apt-cache");
        let text = run(command.args(["depends", name]), name)?;
        let real = text.lines().find_map(|line| {
            line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-"))
        });
        let unknown = || Error::Unknown { name: name.to_owned(), arch: self.arch.debian() };
        real.map(str::to_owned).ok_or_else(unknown)
    }

    fn command(&self, program: &str) -> Command {
        let arch = self.arch.debian();
        let state = self.state.display();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        for option in [
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            format!("Dir::State={state}"),
            format!("Dir::State::status={state}/status"),
            format!("Dir::Cache={state}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::ForceHash=SHA256".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // The cache may be in a home that apt's own user cannot enter.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.arg("-qq");
        command
    }
}

fn is_kernel_metapackage(name: &str) -> bool {
    name.strip_prefix("linux-image-")
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `'URI' FILE SIZE SHA256:DIGEST`, as `--print-uris` writes it.
fn uri_line(line: &str, archives: &Path) -> Option<Fetched> {
    let mut words = line.strip_prefix('\'')?.split(' ').skip(1);
    let file = words.next().filter(|file| !file.contains('/'))?;
    let digest = words.nth(1)?.strip_prefix("SHA256:")?;
    Some(Fetched { file: archives.join(file), digest: digest.to_owned() })
}

fn start(command: &mut Command) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.output().map_err(|source| Error::Start { program, source })
}

/// Its standard output, if it exits 0.
fn run(command: &mut Command, what: &str) -> Result<String, Error> {
    let output = start(command)?;
    if !output.status.success() {
        let program = command.get_program().to_string_lossy().into_owned();
        return Err(Error::Failed { program, what: what.to_owned(), output: both(&output) });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn both(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_list_is_understood() {
        let folder = Path::new("/archives");
        let check = |line: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(file, digest)| Fetched {
                file: folder.join(file),
                digest: digest.to_owned(),
            });
            assert_eq!(uri_line(line, folder), expected, "{line}");
        };
        check(
            "'http://deb.example/b_1%2b1_arm64.deb' b_1%3a1.35+1_arm64.deb 822236 SHA256:73a9",
            Some(("b_1%3a1.35+1_arm64.deb", "73a9")),
        );
        check("'http://deb.example/b.deb' b.deb 822236 MD5Sum:73a9", None);
        check("'http://deb.example/b.deb' ../b.deb 822236 SHA256:73a9", None);
        check("Reading package lists...", None);
        check("", None);
    }

    #[test]
    fn kernels_are_told_from_their_metapackages() {
        assert!(is_kernel_metapackage("linux-image-cloud-arm64"));
        assert!(is_kernel_metapackage("linux-image-armmp"));
        assert!(!is_kernel_metapackage("linux-image-6.1.0-50-armmp"));
        assert!(!is_kernel_metapackage("busybox-static"));
    }
}
