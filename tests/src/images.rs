//! Real images, made by umoci from Debian's programs: one layer with the
//! program and its libraries, one with its configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::PREFIX;
use crate::cloud::Cloud;
use crate::run::{run, tool};

/// An OCI layout folder with one tag for each image.
#[derive(Debug)]
pub struct Images {
    layout: PathBuf,
    work: PathBuf,
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
    /// Programs of this machine, with the shared libraries that they need.
    pub programs: &'a [&'a Path],
    /// Files in a layer of their own: path and text.
    pub files: &'a [(&'a str, &'a str)],
    pub entrypoint: &'a [&'a str],
    pub user: &'a str,
    pub stop_signal: Option<&'a str>,
}

impl Images {
    /// An empty layout below `work`.
    ///
    /// # Errors
    /// umoci is not installed, or cannot write there.
    pub fn new(work: &Path) -> Result<Self> {
        let layout = work.join("oci");
        run(tool("umoci", ["init", "--layout"]).arg(&layout))?;
        let images = Self { layout, work: work.to_owned() };
        let base = images.image(BASE);
        run(&mut tool("umoci", ["new", "--image", &base]))?;
        let root = images.work.join(BASE);
        populate(&root, &[Path::new("/bin/busybox")])?;
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

    /// # Errors
    /// A program that is not there, or what umoci says.
    pub fn build(&self, recipe: &Recipe<'_>) -> Result<()> {
        let image = self.image(recipe.tag);
        run(&mut tool("umoci", ["tag", "--image", &self.image(BASE), recipe.tag]))?;
        let root = self.work.join(recipe.tag);
        populate(&root, recipe.programs)?;
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

    /// nginx as Debian ships it, started with `/etc/nginx/nginx.conf`.
    ///
    /// # Errors
    /// nginx is not installed.
    pub fn build_nginx(&self, tag: &str) -> Result<()> {
        self.build(&Recipe {
            tag,
            programs: &[Path::new("/usr/sbin/nginx")],
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
            programs: &[Path::new("/usr/sbin/mosquitto")],
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
        let lion = crate::host::binary("wherry-lion")?;
        self.build(&Recipe {
            tag,
            programs: &[&lion],
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
    let folder = made()?;
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
fn made() -> Result<PathBuf> {
    let lion = crate::host::binary("wherry-lion")?;
    let folder = lion.with_file_name(format!("{PREFIX}-images"));
    let done = folder.join("done");
    let newer = |a: &Path, b: &Path| -> Result<bool> {
        Ok(fs::metadata(a)?.modified()? > fs::metadata(b)?.modified()?)
    };
    if newer(&done, &lion).unwrap_or(false) {
        return Ok(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let images = Images::new(&folder)?;
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

/// Puts each program where it is on this machine (one of ours into `/bin`),
/// and its libraries beside it.
fn populate(root: &Path, programs: &[&Path]) -> Result<()> {
    for folder in ["bin", "etc", "tmp", "usr/sbin", "dev", "proc", "sys", "var"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for program in programs {
        let system = program.starts_with("/usr") || program.starts_with("/bin");
        let name = program.file_name().context("a program has a name")?;
        let target = if system { (*program).to_owned() } else { Path::new("/bin").join(name) };
        copy(program, root, &target)?;
        if name == "busybox" {
            std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
            continue;
        }
        for library in libraries(program)? {
            copy(&library, root, &library)?;
        }
    }
    Ok(())
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = run(Command::new("ldd").arg(program))?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn copy(from: &Path, root: &Path, to: &Path) -> Result<()> {
    let target = root.join(to.strip_prefix("/").unwrap_or(to));
    fs::create_dir_all(target.parent().context("a program has a folder")?)?;
    fs::copy(from, &target).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Adds the folder `root` as one layer.
fn insert(image: &str, root: &Path) -> Result<()> {
    run(tool("umoci", ["insert", "--image", image]).arg(root).arg("/"))?;
    Ok(())
}
