//! Ranges of layer files for nodes that ask.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use wherry_bundle::limits::CHUNK_BYTES_MAX;
use wherry_bundle::message::{ChunkContents, ChunkData, ChunkGet, Message};
use wherry_bundle::topic::Topic;
use wherry_bundle::{Digest, Name};

use crate::cloud::Cloud;
use crate::image::BlobDir;
use crate::limits::OPEN_LAYERS_MAX;

pub(super) async fn run(cloud: Arc<Cloud>, mut queue: mpsc::Receiver<(Name, ChunkGet)>) {
    let mut layers = OpenLayers::default();
    while let Some((node, get)) = queue.recv().await {
        let (back, contents) = cloud
            .blocking(move |cloud| {
                let contents = layers.read(&cloud.blobs, &get);
                (layers, contents)
            })
            .await;
        layers = back;
        let bytes = match &contents {
            ChunkContents::Bytes(bytes) => bytes.len() as u64,
            ChunkContents::Missing(why) => {
                log::warn!("{node} asks for {} at {}: {why}", get.layer, get.offset);
                0
            }
        };
        let data = ChunkData { layer: get.layer, offset: get.offset, contents };
        let payload = match data.to_bytes() {
            Ok(payload) => payload,
            Err(error) => {
                log::error!("chunk for {node}: {error}");
                continue;
            }
        };
        match cloud.mqtt.publish(Topic::ChunkData.of(&node), false, payload).await {
            Ok(()) => _ = cloud.counters.chunk_bytes.fetch_add(bytes, Ordering::Relaxed),
            Err(error) => log::debug!("chunk for {node} not sent: {error}"),
        }
    }
}

/// Layer files that were asked for lately, the latest last.
#[derive(Debug, Default)]
struct OpenLayers(VecDeque<(Digest, Arc<File>, u64)>);

impl OpenLayers {
    fn read(&mut self, blobs: &BlobDir, get: &ChunkGet) -> ChunkContents {
        let missing = |why: String| ChunkContents::Missing(why);
        let (file, size) = match self.open(blobs, &get.layer) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return missing("there is no such layer".into());
            }
            Err(error) => return missing(error.to_string()),
        };
        let length = get.length as usize;
        let end = get.offset.checked_add(get.length.into());
        if length == 0 || length > CHUNK_BYTES_MAX || end.is_none_or(|end| end > size) {
            return missing(format!("there is no range of {length} bytes in {size} bytes"));
        }
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, get.offset) {
            Ok(()) => ChunkContents::Bytes(bytes),
            Err(error) => missing(error.to_string()),
        }
    }

    fn open(&mut self, blobs: &BlobDir, layer: &Digest) -> io::Result<(Arc<File>, u64)> {
        if let Some(index) = self.0.iter().position(|(digest, _, _)| digest == layer)
            && let Some(found) = self.0.remove(index)
        {
            let (_, file, size) = &found;
            let result = (Arc::clone(file), *size);
            self.0.push_back(found);
            return Ok(result);
        }
        let file = Arc::new(File::open(blobs.layer_path(layer))?);
        let size = file.metadata()?.len();
        if self.0.len() == OPEN_LAYERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((*layer, Arc::clone(&file), size));
        Ok((file, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let layer = Digest::of(&bytes);
        std::fs::write(blobs.layer_path(&layer), &bytes).unwrap();
        let mut layers = OpenLayers::default();
        let mut read = |layer: Digest, offset: u64, length: u32| {
            layers.read(&blobs, &ChunkGet { layer, offset, length })
        };
        assert_eq!(read(layer, 0, 4), ChunkContents::Bytes(bytes[..4].to_vec()));
        assert_eq!(read(layer, 99_000, 1000), ChunkContents::Bytes(bytes[99_000..].to_vec()));
        let max = u32::try_from(CHUNK_BYTES_MAX).unwrap();
        assert!(
            matches!(read(layer, 10, max), ChunkContents::Bytes(b) if b.len() == CHUNK_BYTES_MAX)
        );
        for (offset, length) in
            [(99_000, 1001), (100_000, 1), (u64::MAX, 1), (0, 0), (0, max + 1), (0, u32::MAX)]
        {
            let contents = read(layer, offset, length);
            assert!(matches!(contents, ChunkContents::Missing(_)), "{offset} {length}");
        }
        let other = read(Digest::of(b"other"), 0, 1);
        assert_eq!(other, ChunkContents::Missing("there is no such layer".into()));
    }

    #[test]
    fn few_files_stay_open() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let mut layers = OpenLayers::default();
        for number in 0..2 * OPEN_LAYERS_MAX {
            let layer = Digest::of(&number.to_le_bytes());
            std::fs::write(blobs.layer_path(&layer), b"x").unwrap();
            let get = ChunkGet { layer, offset: 0, length: 1 };
            assert_eq!(layers.read(&blobs, &get), ChunkContents::Bytes(b"x".to_vec()));
            assert_eq!(layers.read(&blobs, &get), ChunkContents::Bytes(b"x".to_vec()));
        }
        assert_eq!(layers.0.len(), OPEN_LAYERS_MAX);
    }
}
