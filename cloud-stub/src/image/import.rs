//! One import from start to end: plan, read and judge every layer, make its
//! squashfs, resolve the user; and only when all of that held, give the new
//! layers their names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::path::Path;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use wherry_bundle::Digest;
use wherry_bundle::model::{Layer, User};

use super::config::{self, ImageConfig};
use super::error::{ImportError, printable};
use super::limits::ACCOUNT_FILE_BYTES_MAX;
use super::manifest::{self, LayerBlob, Plan};
use super::merged::{FileAt, Merged};
use super::reference::{self, familiar};
use super::region::Region;
use super::source::{Source, copy_bounded};
use super::tree::{LayerTree, Refusal};
use super::{BlobDir, ImageInfo, ImportLimits, ImportOptions, ImportedImage, squashfs, user};

/// See [`super::import`].
pub(super) fn run(
    source: &Path,
    options: &ImportOptions,
    blobs: &BlobDir,
    limits: &ImportLimits,
) -> Result<Vec<ImportedImage>, ImportError> {
    let work = blobs.work_dir().map_err(ImportError::io(blobs.path()))?;
    let source = Source::open(source, work.path(), limits)?;
    let mut import = Import {
        blobs,
        limits,
        work: work.path(),
        stacks: BTreeMap::new(),
        new: BTreeMap::new(),
        bytes_left: limits.total_bytes_max,
        entries_left: limits.entries_max,
    };
    let mut images = Vec::new();
    for (plan, config) in selected(manifest::plans(&source, limits)?, &source, options)? {
        let names = names(&plan, options)?;
        let (layers, user) = import.image(&plan, &config, &names[0])?;
        for reference in names {
            images.push(ImageInfo {
                digest: plan.config_digest,
                reference,
                architecture: config.architecture.clone(),
                layers: layers.clone(),
                entrypoint: config.entrypoint.clone(),
                cmd: config.cmd.clone(),
                env: config.env.clone(),
                working_dir: config.working_dir.clone(),
                user: user.clone(),
                stop_signal: config.stop_signal,
                volumes: config.volumes.clone(),
            });
        }
    }
    let images = unique(images)?;
    let was_new = import.commit()?;
    let count = |info: &ImageInfo| {
        info.layers.iter().filter(|layer| was_new.get(&layer.digest) == Some(&true)).count()
    };
    Ok(images.into_iter().map(|info| ImportedImage { layers_new: count(&info), info }).collect())
}

/// What an import has made so far.
struct Import<'a> {
    blobs: &'a BlobDir,
    limits: &'a ImportLimits,
    work: &'a Path,
    /// By the diff_ids from the bottom up to a layer: images share these.
    stacks: BTreeMap<Vec<Digest>, Rc<Made>>,
    /// Finished squashfs files without their names.
    new: BTreeMap<Digest, NamedTempFile>,
    bytes_left: u64,
    entries_left: usize,
}

struct Made {
    layer: Layer,
    tree: LayerTree,
}

impl Import<'_> {
    fn image(
        &mut self,
        plan: &Plan,
        config: &ImageConfig,
        name: &str,
    ) -> Result<(Vec<Layer>, User), ImportError> {
        if plan.layers.len() != config.diff_ids.len() {
            let (blobs, ids) = (plan.layers.len(), config.diff_ids.len());
            let what = format!("has {blobs} layers, but its configuration names {ids}");
            return Err(ImportError::image(name, what));
        }
        let mut merged = Merged::default();
        let mut layers = Vec::new();
        for (number, blob) in plan.layers.iter().enumerate() {
            let stack = &config.diff_ids[..=number];
            let made = match self.stacks.get(stack) {
                Some(made) => {
                    merged.hide(&made.tree);
                    Rc::clone(made)
                }
                None => {
                    let made = Rc::new(self.layer(blob, config.diff_ids[number], &mut merged)?);
                    self.stacks.insert(stack.to_vec(), Rc::clone(&made));
                    made
                }
            };
            merged.add(number, &made.tree);
            layers.push(made.layer);
        }
        let passwd = self.account_file(plan, &merged, "etc/passwd")?;
        let group = self.account_file(plan, &merged, "etc/group")?;
        let user = user::resolve(&config.user, &passwd, &group)
            .map_err(|what| ImportError::image(name, what))?;
        Ok((layers, user))
    }

    /// Verifies, unpacks, judges and packs one layer. Hides in `below` what
    /// it hides, but does not add it.
    fn layer(
        &mut self,
        blob: &LayerBlob,
        diff_id: Digest,
        below: &mut Merged,
    ) -> Result<Made, ImportError> {
        let tar = self.verified_tar(blob, diff_id)?;
        let refuse = |Refusal { entry, what }: Refusal| ImportError::Layer {
            layer: printable(blob.name.as_bytes()),
            entry,
            what,
        };
        let mut tree = LayerTree::read(&tar, self.limits, self.entries_left).map_err(refuse)?;
        below.hide(&tree);
        tree.complete(below, self.limits, self.entries_left).map_err(refuse)?;
        self.entries_left -= tree.len();
        let file = self.blobs.temporary().map_err(ImportError::io(self.blobs.path()))?;
        let jobs = std::thread::available_parallelism().map_or(1, NonZero::get);
        squashfs::make(&tree, &tar, file.path(), jobs)?;
        let made = File::open(file.path()).and_then(Region::whole);
        let made = made.map_err(ImportError::io(file.path()))?;
        let digest = made.digest().map_err(ImportError::io(file.path()))?;
        let layer = Layer { digest, size_bytes: made.len() };
        self.new.insert(digest, file);
        Ok(Made { layer, tree })
    }

    /// The layer's uncompressed tar in a file of its own, after both its
    /// digests were checked.
    fn verified_tar(&mut self, blob: &LayerBlob, diff_id: Digest) -> Result<Region, ImportError> {
        let name = printable(blob.name.as_bytes());
        if let Some(digest) = blob.digest {
            let found = blob.region.digest().map_err(ImportError::io(&name))?;
            if found != digest {
                return Err(ImportError::BlobDigest { blob: name, found });
            }
        }
        let mut spool = tempfile::tempfile_in(self.work).map_err(ImportError::io(self.work))?;
        let mut hasher = Sha256::new();
        let mut input = blob.region.decoded().map_err(ImportError::io(&name))?;
        let keep = |bytes: &[u8]| {
            hasher.update(bytes);
            File::write_all(&mut spool, bytes)
        };
        let bytes_max = self.limits.layer_bytes_max.min(self.bytes_left);
        let bytes =
            copy_bounded(&mut input, keep, &name, blob.region.len(), bytes_max, self.limits)?;
        self.bytes_left -= bytes;
        let found = Digest(hasher.finalize().into());
        if found != diff_id {
            let what = format!("is {found} uncompressed, but the image names {diff_id}");
            return Err(ImportError::Blob { blob: name, what });
        }
        Region::whole(spool).map_err(ImportError::io(self.work))
    }

    /// The contents of an account file, or nothing if the image has none.
    /// Read from the layer again: which one has it is known only at the end.
    fn account_file(
        &self,
        plan: &Plan,
        merged: &Merged,
        path: &str,
    ) -> Result<Vec<u8>, ImportError> {
        let Some(FileAt { layer, offset, size }) = merged.file(path.as_bytes()) else {
            return Ok(Vec::new());
        };
        if size > ACCOUNT_FILE_BYTES_MAX {
            let max = ACCOUNT_FILE_BYTES_MAX;
            let what = format!("/{path} of the image");
            return Err(ImportError::TooLarge { what, max, unit: "bytes" });
        }
        let io = || ImportError::io(path);
        let mut tar = plan.layers[layer].region.decoded().map_err(io())?;
        io::copy(&mut tar.by_ref().take(offset), &mut io::sink()).map_err(io())?;
        let mut bytes = Vec::new();
        tar.take(size).read_to_end(&mut bytes).map_err(io())?;
        Ok(bytes)
    }

    /// Names the new layers; says of each whether it was not there before.
    fn commit(self) -> Result<BTreeMap<Digest, bool>, ImportError> {
        let mut was_new = BTreeMap::new();
        for (digest, file) in self.new {
            let path = self.blobs.layer_path(&digest);
            let new = self.blobs.commit(file, &digest).map_err(ImportError::io(path))?;
            was_new.insert(digest, new);
        }
        Ok(was_new)
    }
}

/// The images that are for Linux and for the wanted architecture.
fn selected(
    plans: Vec<Plan>,
    source: &Source,
    options: &ImportOptions,
) -> Result<Vec<(Plan, ImageConfig)>, ImportError> {
    let mut selected = Vec::new();
    let mut others = Vec::new();
    for plan in plans {
        let name = plan.names.first().map_or("(without a name)", String::as_str);
        let Some(config) = config::parse(&plan.config, plan.variant.as_deref(), name)? else {
            continue;
        };
        match &options.architecture {
            Some(wanted) if *wanted != config.architecture => others.push(config.architecture),
            Some(_) | None => selected.push((plan, config)),
        }
    }
    if !selected.is_empty() {
        return Ok(selected);
    }
    let name = source.path().display().to_string();
    let what = match &options.architecture {
        Some(wanted) => format!("has nothing for {wanted}, only for: {}", others.join(", ")),
        None => "holds no image for Linux".into(),
    };
    Err(ImportError::image(&name, what))
}

/// What the image is called, never nothing.
fn names(plan: &Plan, options: &ImportOptions) -> Result<Vec<String>, ImportError> {
    let given = options.name.as_ref().map(std::slice::from_ref);
    let names = given.unwrap_or(&plan.names);
    if names.is_empty() {
        let digest = plan.config_digest.to_string();
        return Err(ImportError::image(&digest, "has no name: give it one"));
    }
    for name in names {
        if !reference::is_valid(name) {
            return Err(ImportError::image(name, "is not an image name: use REPOSITORY:TAG"));
        }
    }
    Ok(names.iter().map(|name| familiar(name)).collect())
}

/// Drops what is there twice, and refuses two different images of one name.
fn unique(images: Vec<ImageInfo>) -> Result<Vec<ImageInfo>, ImportError> {
    let mut kept: Vec<ImageInfo> = Vec::new();
    for image in images {
        let same = kept
            .iter()
            .find(|k| (&k.reference, &k.architecture) == (&image.reference, &image.architecture));
        match same {
            Some(same) if same.digest == image.digest => {}
            Some(_) => {
                let platform = &image.architecture;
                let what = format!(
                    "two different images for {platform} would have this name: import them one \
                     by one, or by their own names"
                );
                return Err(ImportError::image(&image.reference, what));
            }
            None => kept.push(image),
        }
    }
    Ok(kept)
}
