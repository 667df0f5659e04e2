//! `delta.json`: what an update moves over the line and writes to the flash,
//! beside whole layers (1.0) and a binary patch of the layer (`zstd
//! --patch-from`), which would need the cloud to know what each node holds.
//!
//! (a) one changed line and one changed byte in a large tree; (b) the next
//! release of a server program of Debian's in an otherwise equal image; (c)
//! three components on one base, for a node that has nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use wherry_tests::cloud::Cloud;
use wherry_tests::host::Host;
use wherry_tests::images::{Format, Images, Recipe};
use wherry_tests::node::Node;
use wherry_tests::package::{Component, Package};
use wherry_tests::run::{run, tool};
use wherry_tests::templates::{EVERYWHERE, env, lion};

/// Of the program in which one byte changes.
const PROGRAM_BYTES: usize = 3 << 20;
const BASE: &str = "common";

pub fn measure() -> Result<Value> {
    let work = tempfile::Builder::new().prefix("wherry-test-delta").tempdir_in("/var/tmp")?;
    let images = Images::new(work.path())?;
    // What all have below: layers keep their times, so each is made once.
    image(&images, BASE, &[])?;
    changed_tree(&images, work.path(), "a-1", false)?;
    changed_tree(&images, work.path(), "a-2", true)?;
    two_releases(&images, work.path(), ["b-1", "b-2"])?;
    let shared = ["c-1", "c-2", "c-3"];
    for tag in shared {
        images.tag("a-1", tag)?;
        let own = work.path().join(tag);
        fs::create_dir_all(&own)?;
        fs::write(own.join("component"), tag)?;
        images.add(tag, &own)?;
    }
    let cases = [
        Case { name: "one line and one byte", before: &["a-1"], after: &["a-2"] },
        Case { name: "the next release of a program", before: &["b-1"], after: &["b-2"] },
        Case { name: "three components on one base", before: &[], after: &shared },
    ];
    let cases: Result<Vec<Value>> = cases.iter().map(|case| case.measure(&images)).collect();
    Ok(json!({ "cases": cases? }))
}

/// A node that runs some images gets others.
struct Case<'a> {
    name: &'a str,
    before: &'a [&'a str],
    after: &'a [&'a str],
}

impl Case<'_> {
    fn measure(&self, images: &Images) -> Result<Value> {
        let host = Host::new("bench")?;
        let mut cloud = Cloud::new(&host);
        cloud.start()?;
        cloud.organise()?;
        let mut node = Node::new(&host, &cloud.cli(&["node", "config", "gw-1"])?)?;
        node.start()?;
        let mut generation = 0;
        if !self.before.is_empty() {
            generation += 1;
            roll_out(&cloud, &host, images, "1.0.0", self.before)?;
            node.wait_running(generation)?;
        }
        import(&cloud, images, self.after)?;
        let before = State::of(&host, &node)?;
        forget_peak(&node)?;
        roll_out(&cloud, &host, images, "1.0.1", self.after)?;
        node.wait_running(generation + 1)?;
        let after = State::of(&host, &node)?;
        let seconds = fetched_seconds(&node, generation + 1)?;
        let new = after.layers.iter().filter(|(path, _)| !before.layers.contains_key(*path));
        let stored_bytes: u64 = new.clone().map(|(_, bytes)| bytes).sum();
        // Each component would bring its whole image.
        let full_bytes = if self.before.is_empty() {
            self.after.iter().map(|tag| image_bytes(&cloud, tag)).sum::<Result<u64>>()?
        } else {
            stored_bytes
        };
        let largest_new = new.max_by_key(|(_, bytes)| **bytes).map(|(path, _)| path);
        let largest_old = before.layers.iter().max_by_key(|(_, bytes)| **bytes);
        let patch_bytes = match (largest_old, largest_new) {
            (Some((old, _)), Some(new)) => Some(patch_bytes(old, new)?),
            (_, None) | (None, _) => None,
        };
        let wire_bytes = after.wire_bytes - before.wire_bytes;
        let ratio = wire_bytes as f64 / full_bytes as f64;
        let peak = after.peak_bytes.saturating_sub(before.memory_bytes);
        println!("delta, {}: {wire_bytes} of {full_bytes} bytes ({ratio:.3})", self.name);
        node.purge()?;
        Ok(json!({
            "name": self.name,
            "full_bytes": full_bytes,
            "stored_bytes": stored_bytes,
            "wire_bytes": wire_bytes,
            "wire_ratio": ratio,
            "patch_bytes": patch_bytes,
            "written_bytes": after.written_bytes - before.written_bytes,
            "peak_memory_bytes": peak,
            "seconds": seconds,
        }))
    }
}

/// What is counted before and after.
struct State {
    /// By the gateway's line, with everything around the chunks.
    wire_bytes: u64,
    /// By the node itself.
    written_bytes: u64,
    /// Resident, of the supervisor; and the most since it was forgotten.
    memory_bytes: u64,
    peak_bytes: u64,
    layers: BTreeMap<PathBuf, u64>,
}

impl State {
    fn of(host: &Host, node: &Node<'_>) -> Result<Self> {
        let flash = node.json(&["status"])?["flash"].clone();
        let written = |of: &str| flash[of].as_u64().with_context(|| format!("{of} in {flash}"));
        let mut layers = BTreeMap::new();
        for entry in fs::read_dir(Path::new(node.data()).join("layers"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "squashfs") {
                let bytes = fs::metadata(&path)?.len();
                layers.insert(path, bytes);
            }
        }
        Ok(Self {
            wire_bytes: host.received_bytes()?,
            written_bytes: written("layer_bytes")? + written("state_bytes")?,
            memory_bytes: memory(node, "VmRSS:")?,
            peak_bytes: memory(node, "VmHWM:")?,
            layers,
        })
    }
}

/// proc(5): 5 resets the peak of the resident set.
fn forget_peak(node: &Node<'_>) -> Result<()> {
    let (_, supervisor) = node.pids()?;
    Ok(fs::write(format!("/proc/{supervisor}/clear_refs"), "5")?)
}

fn memory(node: &Node<'_>, field: &str) -> Result<u64> {
    let (_, supervisor) = node.pids()?;
    let status = fs::read_to_string(format!("/proc/{supervisor}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).context("proc's status")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// From the bundle to the last layer, by the node's events.
fn fetched_seconds(node: &Node<'_>, generation: u64) -> Result<f64> {
    let events = node.json(&["events", "--tail", "100"])?;
    let at = |kind: &str| {
        let events = events.as_array()?.iter();
        let mut own = events.filter(|e| e["generation"] == generation && e["kind"] == kind);
        own.next_back()?["boot_millis"].as_u64()
    };
    let times = at("layer-fetched").zip(at("bundle-taken-up"));
    let (end, begin) = times.with_context(|| format!("no transfer in {events}"))?;
    Ok(end.saturating_sub(begin) as f64 / 1000.0)
}

fn roll_out(
    cloud: &Cloud<'_>,
    host: &Host,
    images: &Images,
    number: &str,
    tags: &[&str],
) -> Result<()> {
    import(cloud, images, tags)?;
    let component = |(index, tag): (usize, &&str)| {
        let name = format!("web-{index}");
        let template = lion(&name, "", "", &env(&[EVERYWHERE, ("LION_VERSION", number)]));
        Component::new(&name, &format!("{tag}:1"), template)
    };
    let components = tags.iter().enumerate().map(component).collect();
    Package::new(number, components).roll_out(cloud, host)
}

fn import(cloud: &Cloud<'_>, images: &Images, tags: &[&str]) -> Result<()> {
    for tag in tags {
        let file = images.export(tag, Format::Layout)?;
        let file = file.to_str().context("a plain path")?;
        cloud.cli(&["image", "import", file, "--name", &format!("{tag}:1")])?;
        fs::remove_dir_all(file)?;
    }
    Ok(())
}

fn image_bytes(cloud: &Cloud<'_>, tag: &str) -> Result<u64> {
    let image = cloud.json(&["image", "show", &format!("{tag}:1")])?;
    image[0]["size_bytes"].as_u64().with_context(|| format!("no size in {image}"))
}

fn patch_bytes(old: &Path, new: &Path) -> Result<u64> {
    let patch = tempfile::NamedTempFile::new()?;
    let mut zstd = tool("zstd", ["-q", "-f", "-19", "--long=27"]);
    zstd.arg(format!("--patch-from={}", old.display())).arg(new).arg("-o").arg(patch.path());
    run(&mut zstd)?;
    Ok(fs::metadata(patch.path())?.len())
}

/// A base, the lion, and some files.
fn image(images: &Images, tag: &str, files: &[(&str, &str)]) -> Result<()> {
    images.build(&Recipe {
        tag,
        programs: &[],
        lion: true,
        files,
        entrypoint: &["/bin/wherry-lion"],
        user: "1000:1000",
        stop_signal: None,
    })
}

/// An image with Python's library and a large program; if `is_changed`, a
/// module of it has one line more, and the program another byte.
fn changed_tree(images: &Images, work: &Path, tag: &str, is_changed: bool) -> Result<()> {
    let tree = work.join(format!("{tag}-tree"));
    fs::create_dir_all(tree.join("usr/lib"))?;
    let library = tree.join("usr/lib/python");
    run(tool("cp", ["-a", "/usr/lib/python3.11"]).arg(&library))?;
    let mut program = fs::read("/usr/bin/python3.11")?;
    ensure!(program.len() >= PROGRAM_BYTES, "python is a small program here");
    program.truncate(PROGRAM_BYTES);
    if is_changed {
        program[PROGRAM_BYTES / 2] ^= 1;
        let module = library.join("json/decoder.py");
        let text = fs::read_to_string(&module)?;
        fs::write(&module, text.replacen("\nclass", "\nDEBUG = False\nclass", 1))?;
    }
    fs::write(tree.join("usr/lib/program"), program)?;
    // As a build does that keeps the times of what did not change.
    for path in [".", "usr", "usr/lib", "usr/lib/program"] {
        run(tool("touch", ["-d", "2026-01-01"]).arg(tree.join(path)))?;
    }
    images.tag(BASE, tag)?;
    images.add(tag, &tree)
}

/// Images with nginx as Debian released it before the last time, and last;
/// libraries and all else are the same.
fn two_releases(images: &Images, work: &Path, tags: [&str; 2]) -> Result<()> {
    let known = run(&mut tool("apt-cache", ["madison", "nginx"]))?;
    let mut versions: Vec<&str> =
        known.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim())).collect();
    versions.dedup();
    let [last, before, ..] = versions[..] else {
        bail!("apt knows one release of nginx only: {known}");
    };
    for (tag, version) in tags.into_iter().zip([before, last]) {
        let folder = work.join(tag);
        fs::create_dir_all(&folder)?;
        let package = format!("nginx={version}");
        run(tool("apt-get", ["download", "-qq", &package]).current_dir(&folder))?;
        let file = fs::read_dir(&folder)?.next().context("a package")??.path();
        let root = folder.join("root");
        run(tool("dpkg-deb", ["-x"]).arg(&file).arg(&root))?;
        images.tag(BASE, tag)?;
        images.add_program(tag, &root.join("usr/sbin/nginx"), "/usr/sbin/nginx")?;
    }
    Ok(())
}
