//! Configuration files of pods: `RUN/volumes/HASH/VOLUME/…`, on the run
//! folder's tmpfs. The launcher mounts them; pods of one hash share them.
//!
//! Only root gets below `RUN/volumes`: the files' own modes are for the
//! containers that see them. A folder appears whole, by a rename.
//! Never here: flash; secrets are on it inside the bundle only.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use wherry_bundle::model::{ConfigVolume, Deployment, VolumeSource};
use wherry_bundle::{Bundle, Digest};

use super::spec::volumes_folder;

const ROOT_MODE: u32 = 0o700;
/// Of folders that containers see.
const FOLDER_MODE: u32 = 0o755;
const UNFINISHED: &str = "new-";

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct VolumeError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Writes the volumes of `deployment`'s pods below `root`. What is there
/// already is whole, and left alone.
///
/// # Errors
/// The run folder is full, or cannot be written.
pub fn write(root: &Path, bundle: &Bundle, deployment: &Deployment) -> Result<(), VolumeError> {
    let name = volumes_folder(&bundle.pod_hash(deployment));
    let folder = root.join(&name);
    if deployment.pod.volumes.is_empty() || folder.exists() {
        return Ok(());
    }
    make_folder(root, ROOT_MODE)?;
    // The launcher may have made it, for everybody to look into.
    fs::set_permissions(root, Permissions::from_mode(ROOT_MODE))
        .map_err(error("set the mode of", root))?;
    let unfinished = root.join(format!("{UNFINISHED}{name}"));
    remove(&unfinished)?;
    make_folder(&unfinished, FOLDER_MODE)?;
    for volume in &deployment.pod.volumes {
        match &volume.source {
            VolumeSource::Config(source) => {
                write_volume(&unfinished.join(volume.name.as_str()), bundle, source)?;
            }
            VolumeSource::HostPath(_) | VolumeSource::EmptyDir { .. } | VolumeSource::Claim(_) => {}
        }
    }
    fs::rename(&unfinished, &folder).map_err(error("rename", &unfinished))
}

/// Removes the volumes of all hashes that are not in `used`.
///
/// # Errors
/// The first folder that cannot be removed.
pub fn prune(root: &Path, used: &BTreeSet<Digest>) -> Result<(), VolumeError> {
    let entries = match fs::read_dir(root) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(error("list", root))?,
    };
    for entry in entries {
        let path = entry.map_err(error("list", root))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !Digest::parse(name).is_some_and(|hash| used.contains(&hash)) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn write_volume(folder: &Path, bundle: &Bundle, volume: &ConfigVolume) -> Result<(), VolumeError> {
    make_folder(folder, FOLDER_MODE)?;
    let Some(config) = bundle.config(&volume.config) else { return Ok(()) };
    for (file, bytes) in &config.files {
        // Keys and paths of a valid bundle are plain and relative.
        let path = match volume.items.get(file) {
            Some(path) => path,
            None if volume.items.is_empty() => file,
            None => continue,
        };
        let path = folder.join(path);
        let parents: Vec<&Path> =
            path.ancestors().skip(1).take_while(|parent| *parent != folder).collect();
        for parent in parents.into_iter().rev() {
            make_folder(parent, FOLDER_MODE)?;
        }
        write_file(&path, bytes, u32::from(volume.mode))?;
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), VolumeError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(error("create", path))?;
    file.write_all(bytes).map_err(error("write", path))?;
    // Not at creation: the umask would take bits away.
    file.set_permissions(Permissions::from_mode(mode)).map_err(error("set the mode of", path))
}

fn make_folder(path: &Path, mode: u32) -> Result<(), VolumeError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => {
            result.map_err(error("create", path))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(error("set the mode of", path))
        }
    }
}

fn remove(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(error("remove", path)(source))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::sample;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_modes_and_items_are_as_the_template_says() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volumes");
        fs::create_dir(&root).unwrap();
        let bundle = sample::bundle();
        let deployment = &bundle.deployments[0];
        write(&root, &bundle, deployment).unwrap();
        write(&root, &bundle, deployment).unwrap();
        let folder = root.join(bundle.pod_hash(deployment).hex());
        let item = folder.join("config/conf.d/lion.properties");
        assert_eq!(fs::read_to_string(&item).unwrap(), "a=1\n");
        assert_eq!((mode(&item), mode(item.parent().unwrap())), (0o644, 0o755));
        assert!(!folder.join("config/box.conf").exists(), "not among the items");
        assert_eq!(fs::read_to_string(folder.join("all/box.conf")).unwrap(), "b\n");
        assert_eq!(mode(&folder.join("all/lion.properties")), 0o444);
        assert_eq!(mode(&folder.join("keys/key.pem")), 0o400);
        assert_eq!(mode(&root), 0o700, "secrets are for root and their containers only");
    }

    #[test]
    fn what_a_crash_left_is_replaced_and_what_is_unused_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let mut bundle = sample::bundle();
        let hash = bundle.pod_hash(&bundle.deployments[0]);
        let unfinished = root.join(format!("new-{}", hash.hex()));
        fs::create_dir_all(unfinished.join("keys")).unwrap();
        fs::write(unfinished.join("keys/key.pem"), "half").unwrap();
        write(&root, &bundle, &bundle.deployments[0]).unwrap();
        assert!(!unfinished.exists());
        let key = root.join(hash.hex()).join("keys/key.pem");
        assert_eq!(fs::read_to_string(&key).unwrap(), "secret\n");

        bundle.configs[0].files.insert("key.pem".into(), b"other".to_vec());
        let other = bundle.pod_hash(&bundle.deployments[0]);
        write(&root, &bundle, &bundle.deployments[0]).unwrap();
        assert_ne!(hash, other);
        prune(&root, &BTreeSet::from([other])).unwrap();
        let left: Vec<_> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [other.hex().as_str()]);
        prune(&root.join("none"), &BTreeSet::new()).unwrap();
    }
}
