//! Real images, made by umoci from Debian's programs, of this machine or of
//! another architecture: one layer with the program and its libraries, one
//! with its configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use wherry_rig::Arch;

use crate::PREFIX;
use crate::cloud::Cloud;
use crate::run::{run, tool};

/// An OCI layout folder with one tag for each image.
#[derive(Debug)]
pub struct Images {
    layout: PathBuf,
    work: PathBuf,
    source: Source,
}

/// Where programs come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The root of a Debian system.
    root: PathBuf,
    /// As OCI names it.
    architecture: &'static str,
    /// The lion, which is no part of Debian.
    lion: PathBuf,
    /// Where what is made of them is kept.
    made: PathBuf,
}

impl Source {
    /// This machine, and this build's lion.
    ///
    /// # Errors
    /// The lion is not built.
    pub fn here() -> Result<Self> {
        let lion = crate::host::binary("wherry-lion")?;
        let made = lion.with_file_name(format!("{PREFIX}-images"));
        Ok(Self { root: "/".into(), architecture: "amd64", lion, made })
    }

    /// Debian's packages for `arch`, and the static lion.
    ///
    /// # Errors
    /// No package registry, or no static build.
    pub fn of(arch: Arch) -> Result<Self> {
        let packages = ["busybox-static", "nginx-light", "mosquitto"];
        let root = wherry_rig::packages(arch, &packages, true)?;
        let made = Self::here()?.made.with_file_name(format!("{PREFIX}-images-{arch}"));
        let lion = static_binary(arch, "wherry-lion")?;
        Ok(Self { root, architecture: oci_name(arch), lion, made })
    }
}

/// As OCI images name it.
#[must_use]
pub fn oci_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Aarch64 => "arm64",
        Arch::Armv7 => "arm",
        Arch::X86_64 => "amd64",
    }
}

/// A program of this workspace as `make static` built it.
///
/// # Errors
/// It did not.
pub fn static_binary(arch: Arch, name: &str) -> Result<PathBuf> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/static/{arch}/{name}"));
    path.canonicalize()
        .with_context(|| format!("{} is not there: run `make static`", path.display()))
}

/// What people have images in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder.
    Layout,
    OciArchive,
    /// As `docker save` writes it.
    DockerArchive,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Layout => "layout",
            Self::OciArchive => "oci.tar",
            Self::DockerArchive => "docker.tar",
        }
    }
}

/// The tag that all others are built on: a shell, and the usual folders.
const BASE: &str = "base";

/// What goes into one image.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The tag, such as `nginx-1.22`.
    pub tag: &'a str,
    /// Programs of Debian, with the shared libraries that they need.
    pub programs: &'a [&'a str],
    pub lion: bool,
    /// Files in a layer of their own: path and text.
    pub files: &'a [(&'a str, &'a str)],
    pub entrypoint: &'a [&'a str],
    pub user: &'a str,
    pub stop_signal: Option<&'a str>,
}

impl Images {
    /// An empty layout below `work`, for programs of this machine.
    ///
    /// # Errors
    /// umoci is not installed, or cannot write there.
    pub fn new(work: &Path) -> Result<Self> {
        Self::of(work, Source::here()?)
    }

    fn of(work: &Path, source: Source) -> Result<Self> {
        let layout = work.join("oci");
        run(tool("umoci", ["init", "--layout"]).arg(&layout))?;
        let images = Self { layout, work: work.to_owned(), source };
        let base = images.image(BASE);
        run(&mut tool("umoci", ["new", "--image", &base]))?;
        let architecture = ["--architecture", images.source.architecture];
        run(tool("umoci", ["config", "--image", &base]).args(architecture))?;
        let root = images.work.join(BASE);
        images.populate(&root, &["/bin/busybox"])?;
        insert(&base, &root)?;
        Ok(images)
    }

    /// Copies the image out for `wherry-cloud image import`, by skopeo.
    ///
    /// # Errors
    /// What skopeo says.
    pub fn export(&self, tag: &str, format: Format) -> Result<PathBuf> {
        let transport = match format {
            Format::Layout => "oci",
            Format::OciArchive => "oci-archive",
            Format::DockerArchive => "docker-archive",
        };
        let path = self.work.join(format!("{tag}.{}", format.ending()));
        let source = format!("oci:{}", self.image(tag));
        let target = format!("{transport}:{}:{tag}", path.display());
        run(&mut tool("skopeo", ["copy", "--quiet", "--insecure-policy", &source, &target]))?;
        Ok(path)
    }

    fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.layout.display())
    }

    /// Puts each program where Debian has it, and its libraries beside it.
    fn populate(&self, root: &Path, programs: &[&str]) -> Result<()> {
        for folder in ["bin", "etc", "tmp", "usr/sbin", "dev", "proc", "sys", "var"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        for program in programs.iter().map(Path::new) {
            let file = under(&self.source.root, program);
            copy(&file, root, program)?;
            if program.ends_with("busybox") {
                std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
            }
            for library in libraries(&self.source.root, &file)? {
                copy(&under(&self.source.root, &library), root, &library)?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// A program that is not there, or what umoci says.
    pub fn build(&self, recipe: &Recipe<'_>) -> Result<()> {
        let image = self.image(recipe.tag);
        run(&mut tool("umoci", ["tag", "--image", &self.image(BASE), recipe.tag]))?;
        let root = self.work.join(recipe.tag);
        self.populate(&root, recipe.programs)?;
        if recipe.lion {
            copy(&self.source.lion, &root, Path::new("/bin/wherry-lion"))?;
            // Built for tests it is a program like others, else it is static.
            for library in libraries(&self.source.root, &self.source.lion)? {
                copy(&under(&self.source.root, &library), &root, &library)?;
            }
        }
        insert(&image, &root)?;
        if !recipe.files.is_empty() {
            let root = self.work.join(format!("{}-files", recipe.tag));
            for (path, text) in recipe.files {
                let path = root.join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().context("a file needs a folder")?)?;
                fs::write(&path, text)?;
            }
            insert(&image, &root)?;
        }
        let mut config = tool("umoci", ["config", "--image", &image, "--clear", "config.cmd"]);
        for word in recipe.entrypoint {
            config.args(["--config.entrypoint", word]);
        }
        config.args(["--config.user", recipe.user]);
        if let Some(signal) = recipe.stop_signal {
            config.args(["--config.stopsignal", signal]);
        }
        run(&mut config)?;
        Ok(())
    }

    /// Gives an image another name, to go on from.
    ///
    /// # Errors
    /// What umoci says.
    pub fn tag(&self, tag: &str, new: &str) -> Result<()> {
        run(&mut tool("umoci", ["tag", "--image", &self.image(tag), new]))?;
        Ok(())
    }

    /// An image of nothing but the files in `folder`: no shell, no users, no
    /// `/tmp`.
    ///
    /// # Errors
    /// What umoci says.
    pub fn build_bare(&self, tag: &str, folder: &Path, entrypoint: &[&str]) -> Result<()> {
        let image = self.image(tag);
        run(&mut tool("umoci", ["new", "--image", &image]))?;
        insert(&image, folder)?;
        let mut config = tool("umoci", ["config", "--image", &image, "--config.user", "65532"]);
        config.args(["--architecture", self.source.architecture]);
        for word in entrypoint {
            config.args(["--config.entrypoint", word]);
        }
        run(&mut config)?;
        Ok(())
    }

    /// # Errors
    /// What umoci says.
    pub fn set_working_dir(&self, tag: &str, path: &str) -> Result<()> {
        let image = self.image(tag);
        run(&mut tool("umoci", ["config", "--image", &image, "--config.workingdir", path]))?;
        Ok(())
    }

    /// Declares a folder of an image as a volume.
    ///
    /// # Errors
    /// What umoci says.
    pub fn declare_volume(&self, tag: &str, path: &str) -> Result<()> {
        let image = self.image(tag);
        run(&mut tool("umoci", ["config", "--image", &image, "--config.volume", path]))?;
        Ok(())
    }

    /// Puts all of `folder` on top of an image, as one layer.
    ///
    /// # Errors
    /// What umoci says.
    pub fn add(&self, tag: &str, folder: &Path) -> Result<()> {
        insert(&self.image(tag), folder)
    }

    /// Puts the program in `file`, as `path`, and its libraries on top of an
    /// image, as one layer.
    ///
    /// # Errors
    /// It needs a library that is not here, or what umoci says.
    pub fn add_program(&self, tag: &str, file: &Path, path: &str) -> Result<()> {
        let root = self.work.join(format!("{tag}-program"));
        let target = under(&root, Path::new(path));
        fs::create_dir_all(target.parent().context("a program has a folder")?)?;
        fs::copy(file, &target)?;
        for library in libraries(&self.source.root, file)? {
            copy(&under(&self.source.root, &library), &root, &library)?;
        }
        self.add(tag, &root)
    }

    /// nginx as Debian ships it, started with `/etc/nginx/nginx.conf`.
    ///
    /// # Errors
    /// nginx is not installed.
    pub fn build_nginx(&self, tag: &str) -> Result<()> {
        self.build(&Recipe {
            tag,
            programs: &["/usr/sbin/nginx"],
            lion: false,
            files: &[("/etc/passwd", "root:x:0:0::/:/bin/sh\nnginx:x:101:101::/:/bin/false\n")],
            entrypoint: &["/usr/sbin/nginx", "-e", "stderr", "-c", "/etc/nginx/nginx.conf"],
            user: "nginx",
            stop_signal: Some("SIGQUIT"),
        })
    }

    /// mosquitto as Debian ships it.
    ///
    /// # Errors
    /// mosquitto is not installed.
    pub fn build_mosquitto(&self, tag: &str) -> Result<()> {
        self.build(&Recipe {
            tag,
            programs: &["/usr/sbin/mosquitto"],
            lion: false,
            files: &[("/etc/passwd", "mosquitto:x:102:102::/:/bin/false\n")],
            entrypoint: &["/usr/sbin/mosquitto"],
            user: "102:102",
            stop_signal: None,
        })
    }

    /// The lion of this workspace, as version `version`.
    ///
    /// # Errors
    /// It is not built.
    pub fn build_lion(&self, tag: &str, version: &str) -> Result<()> {
        self.build(&Recipe {
            tag,
            programs: &[],
            lion: true,
            files: &[("/etc/lion-version", version)],
            entrypoint: &["/bin/wherry-lion"],
            user: "1000:1000",
            stop_signal: None,
        })
    }
}

/// Imports the images of this workspace into the cloud, each from one of the
/// forms in which people have them: `nginx:1.22`, `mosquitto:2.0`,
/// `lion:1.0.0` and `lion:2.0.0`. They are made once for each build.
///
/// # Errors
/// A tool that is not installed, or what the cloud says.
pub fn import(cloud: &Cloud<'_>) -> Result<()> {
    import_of(cloud, Source::here()?)
}

/// As [`import`], of programs from elsewhere.
///
/// # Errors
/// As [`import`].
pub fn import_of(cloud: &Cloud<'_>, source: Source) -> Result<()> {
    let folder = made(source)?;
    for (name, format) in FORMS {
        let file = folder.join(format!("{}.{}", name.replace(':', "-"), format.ending()));
        cloud.cli(&["image", "import", file.to_str().context("a plain path")?, "--name", name])?;
    }
    Ok(())
}

const FORMS: [(&str, Format); 4] = [
    ("nginx:1.22", Format::OciArchive),
    ("mosquitto:2.0", Format::Layout),
    ("lion:1.0.0", Format::DockerArchive),
    ("lion:2.0.0", Format::DockerArchive),
];

/// The folder with all archives, beside the programs of this workspace.
fn made(source: Source) -> Result<PathBuf> {
    let folder = source.made.clone();
    // Several tests may want them at once.
    let lock = fs::File::create(folder.with_extension("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let done = folder.join("done");
    let newer = |a: &Path, b: &Path| -> Result<bool> {
        Ok(fs::metadata(a)?.modified()? > fs::metadata(b)?.modified()?)
    };
    if newer(&done, &source.lion).unwrap_or(false) {
        return Ok(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let images = Images::of(&folder, source)?;
    images.build_nginx("nginx-1.22")?;
    images.build_mosquitto("mosquitto-2.0")?;
    images.build_lion("lion-1.0.0", "1.0.0")?;
    images.build_lion("lion-2.0.0", "2.0.0")?;
    for (name, format) in FORMS {
        images.export(&name.replace(':', "-"), format)?;
    }
    fs::write(done, "")?;
    Ok(folder)
}

/// `path` of the system whose root is `root`.
fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The shared libraries of a program, those that they need, and the program
/// that loads them; read from the files themselves (readelf(1)), since a
/// program of another architecture cannot be asked.
fn libraries(root: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut unread = vec![program.to_owned()];
    while let Some(file) = unread.pop() {
        let text = run(Command::new("readelf").args(["-W", "-l", "-d"]).arg(&file))?;
        for line in text.lines() {
            let between = |open: char, close: char| {
                line.split_once(open)?.1.split_once(close).map(|(word, _)| word.to_owned())
            };
            let path = if line.contains("(NEEDED)") {
                library(root, &between('[', ']').context("a library has a name")?)?
            } else if let Some((_, loader)) = line.split_once("program interpreter: ") {
                PathBuf::from(loader.trim_end_matches(']'))
            } else {
                continue;
            };
            if !found.contains(&path) {
                unread.push(under(root, &path));
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Where Debian has a library of this name: `/lib/TRIPLET/NAME`, or the same
/// under `/usr`.
fn library(root: &Path, name: &str) -> Result<PathBuf> {
    for folder in ["/lib", "/usr/lib"] {
        for entry in fs::read_dir(under(root, Path::new(folder))).into_iter().flatten() {
            let triplet = entry?.file_name();
            let path = Path::new(folder).join(triplet).join(name);
            let plain = path.to_string_lossy().contains("-linux-gnu");
            if plain && under(root, &path).exists() {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("no library {name} in {}", root.display())
}

fn copy(from: &Path, root: &Path, to: &Path) -> Result<()> {
    let target = under(root, to);
    fs::create_dir_all(target.parent().context("a program has a folder")?)?;
    fs::copy(from, &target).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Adds the folder `root` as one layer.
fn insert(image: &str, root: &Path) -> Result<()> {
    run(tool("umoci", ["insert", "--image", image]).arg(root).arg("/"))?;
    Ok(())
}
