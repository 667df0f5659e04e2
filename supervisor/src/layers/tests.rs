use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use wherry_bundle::carrier::Item;
use wherry_bundle::chunk::Chunk;

use super::*;

const CHUNK: usize = 30_000;

/// Bytes that differ everywhere, so that a shifted write shows.
fn contents(length: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i * seed + i / 251 + i / 65_537) % 256).unwrap();
    (0..length).map(byte).collect()
}

fn layer_of(bytes: &[u8]) -> Layer {
    Layer { digest: Digest::of(bytes), size_bytes: bytes.len() as u64 }
}

fn lists_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let chunk = |bytes: &[u8]| Chunk {
        digest: Digest::of(bytes),
        size_bytes: u32::try_from(bytes.len()).unwrap(),
    };
    ChunkList::encode(&bytes.chunks(CHUNK).map(chunk).collect::<Vec<_>>()).unwrap()
}

struct Folder {
    layers: Layers,
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { layers: Layers::open(&dir.path().join("layers")).unwrap(), dir }
    }

    /// As after a restart.
    fn reopened(self) -> Self {
        let layers = Layers::open(&self.dir.path().join("layers")).unwrap();
        Self { layers, ..self }
    }

    fn begin(&self, bytes: &[u8]) -> Assembly {
        let layer = layer_of(bytes);
        self.layers.put_lists(&layer, &lists_of(bytes)).unwrap();
        Assembly::begin(&self.layers, layer).unwrap()
    }

    /// Builds the layer; which chunks had to come from outside.
    fn build(&self, bytes: &[u8]) -> Vec<usize> {
        let mut assembly = self.begin(bytes);
        let supplied = supply(&mut assembly, bytes, usize::MAX);
        assembly.finish().unwrap();
        assert_eq!(fs::read(self.layers.path(&Digest::of(bytes))).unwrap(), bytes);
        supplied
    }

    fn flip(&self, path: &Path, offset: u64) {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }

    fn names(&self) -> BTreeSet<String> {
        let names = fs::read_dir(&self.layers.dir).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Supplies at most `most` chunks; which they were.
fn supply(assembly: &mut Assembly, bytes: &[u8], most: usize) -> Vec<usize> {
    let mut supplied = Vec::new();
    loop {
        match assembly.advance().unwrap() {
            Step::More => {}
            Step::Whole => return supplied,
            Step::Needs(_) if supplied.len() == most => return supplied,
            Step::Needs(Located { index, offset, chunk }) => {
                let start = usize::try_from(offset).unwrap();
                assembly.supply(&bytes[start..start + chunk.size_bytes as usize]).unwrap();
                supplied.push(index);
            }
        }
    }
}

fn missing(assembly: &mut Assembly) -> Vec<usize> {
    let mut ahead = Ahead::default();
    std::iter::from_fn(|| assembly.missing(&mut ahead).unwrap().map(|found| found.index)).collect()
}

#[test]
fn a_layer_gets_its_name_when_it_is_whole() {
    let folder = Folder::new();
    let bytes = contents(3_000_017, 7);
    let layer = layer_of(&bytes);
    let mut assembly = folder.begin(&bytes);
    let count = bytes.len().div_ceil(CHUNK);
    assert_eq!(missing(&mut assembly), (0..count).collect::<Vec<_>>());
    assert_eq!(supply(&mut assembly, &bytes, count - 1).len(), count - 1);
    assert!(!folder.layers.is_whole(&layer));
    assert_eq!(supply(&mut assembly, &bytes, 1), [count - 1]);
    assert!(!folder.layers.is_whole(&layer));
    assembly.finish().unwrap();
    assert!(folder.layers.is_whole(&layer));
    assert_eq!(folder.layers.present().unwrap(), [(layer.digest, layer.size_bytes)].into());
    let lists: usize = lists_of(&bytes).iter().map(|list| list.len() + 10).sum();
    assert_eq!(folder.layers.written_bytes(), (bytes.len() + lists) as u64);
}

#[test]
fn only_what_no_other_layer_has_comes_from_outside() {
    let folder = Folder::new();
    let first = contents(2_000_000, 7);
    folder.build(&first);
    let mut second = first.clone();
    second[700_000] ^= 1;
    second.extend(contents(10_000, 11));
    let mut assembly = folder.begin(&second);
    assert_eq!(missing(&mut assembly), [700_000 / CHUNK, 2_000_000 / CHUNK]);
    drop(assembly);
    assert_eq!(folder.build(&second), [700_000 / CHUNK, 2_000_000 / CHUNK]);
}

#[test]
fn a_chunk_that_a_layer_has_twice_comes_once() {
    let folder = Folder::new();
    let once = contents(3 * CHUNK, 7);
    assert_eq!(folder.build(&[once.as_slice(), &once].concat()), [0, 1, 2]);
}

#[test]
fn what_was_verified_is_not_fetched_again_after_a_kill() {
    let folder = Folder::new();
    let bytes = contents(2_000_000, 7);
    let mut assembly = folder.begin(&bytes);
    supply(&mut assembly, &bytes, 41);
    drop(assembly);
    let folder = folder.reopened();
    // The forty-second was being written.
    let part = folder.layers.part_path(&Digest::of(&bytes));
    let file = OpenOptions::new().append(true).open(&part).unwrap();
    std::io::Write::write_all(&mut &file, &bytes[41 * CHUNK..41 * CHUNK + 5]).unwrap();
    let mut assembly = folder.begin(&bytes);
    let count = bytes.len().div_ceil(CHUNK);
    assert_eq!(missing(&mut assembly), (41..count).collect::<Vec<_>>());
    assert_eq!(supply(&mut assembly, &bytes, usize::MAX), (41..count).collect::<Vec<_>>());
    assembly.finish().unwrap();
}

#[test]
fn of_a_part_only_damaged_chunks_come_again() {
    let folder = Folder::new();
    let bytes = contents(2_000_000, 7);
    let part = folder.layers.part_path(&Digest::of(&bytes));
    supply(&mut folder.begin(&bytes), &bytes, 50);
    folder.flip(&part, 3 * CHUNK as u64);
    let mut assembly = folder.begin(&bytes);
    assert_eq!(supply(&mut assembly, &bytes, 3), [3, 50, 51]);
    drop(assembly);
    // As a power cut may leave its end: not a byte of it is right.
    let file = OpenOptions::new().write(true).open(&part).unwrap();
    file.write_all_at(&vec![0; 20 * CHUNK], 20 * CHUNK as u64).unwrap();
    let expected: Vec<usize> = (20..bytes.len().div_ceil(CHUNK)).collect();
    assert_eq!(folder.build(&bytes), expected);
}

#[test]
fn the_part_of_a_transfer_that_was_given_up_serves_the_next_one() {
    let folder = Folder::new();
    let old = contents(2_000_000, 7);
    supply(&mut folder.begin(&old), &old, 30);
    let mut new = old.clone();
    new[5] ^= 1;
    assert_eq!(folder.build(&new)[..3], [0, 30, 31]);
}

#[test]
fn a_damaged_layer_is_built_from_what_is_good_of_it() {
    let folder = Folder::new();
    let bytes = contents(2_000_000, 7);
    folder.build(&bytes);
    let digest = Digest::of(&bytes);
    folder.flip(&folder.layers.path(&digest), 100_000);
    folder.layers.quarantine(&digest).unwrap();
    assert!(!folder.layers.is_whole(&layer_of(&bytes)));
    let folder = folder.reopened();
    assert_eq!(folder.build(&bytes), [100_000 / CHUNK]);
    let hex = digest.hex();
    assert_eq!(folder.names(), [format!("{hex}.chunks"), format!("{hex}.squashfs")].into());
}

#[test]
fn a_layer_is_built_by_one_at_a_time() {
    let folder = Folder::new();
    let bytes = contents(100_000, 7);
    let assembly = folder.begin(&bytes);
    let error = Assembly::begin(&folder.layers, layer_of(&bytes)).unwrap_err();
    assert!(matches!(error, LayerError::Busy { .. }), "{error}");
    drop(assembly);
    folder.begin(&bytes);
}

#[test]
fn lists_of_another_layer_are_found_out() {
    let folder = Folder::new();
    let (bytes, other) = (contents(100_000, 7), contents(100_000, 11));
    let layer = layer_of(&bytes);
    let short = folder.layers.put_lists(&layer, &lists_of(&other[1..])).unwrap_err();
    assert!(matches!(short, LayerError::Cut { .. }), "{short}");
    folder.layers.put_lists(&layer, &lists_of(&other)).unwrap();
    let mut assembly = Assembly::begin(&folder.layers, layer).unwrap();
    supply(&mut assembly, &other, usize::MAX);
    let error = assembly.finish().unwrap_err();
    assert!(matches!(error, LayerError::Digest { .. }), "{error}");
    assert_eq!(folder.names(), BTreeSet::new(), "it would fail for ever");
}

#[test]
fn damaged_lists_are_not_lists() {
    let folder = Folder::new();
    let bytes = contents(100_000, 7);
    let layer = layer_of(&bytes);
    folder.build(&bytes);
    let digests: Vec<Digest> = lists_of(&bytes).iter().map(|list| Digest::of(list)).collect();
    assert!(folder.layers.has_lists(&layer, &digests) && folder.layers.has_lists(&layer, &[]));
    assert!(!folder.layers.has_lists(&layer, &[Digest::of(b"others")]));
    folder.flip(&folder.layers.file(&layer.digest, LISTS), 30);
    assert!(!folder.layers.has_lists(&layer, &digests));
    // Nothing can be copied from it then, and that is all.
    assert_eq!(folder.build(&contents(100_000, 11)).len(), 4);
}

#[test]
fn more_chunks_than_one_list_has_are_found_by_their_numbers() {
    let folder = Folder::new();
    let bytes = contents(100, 7);
    let chunk = |n: usize| Chunk { digest: Digest::of(&n.to_le_bytes()), size_bytes: 1 };
    let chunks: Vec<Chunk> = (0..5000).map(chunk).collect();
    let layer = Layer { digest: Digest::of(&bytes), size_bytes: 5000 };
    folder.layers.put_lists(&layer, &ChunkList::encode(&chunks).unwrap()).unwrap();
    let mut lists = folder.layers.lists(&layer.digest).unwrap();
    assert_eq!((lists.len(), lists.size_bytes(), lists.digests().count()), (5000, 5000, 3));
    for index in [0, 2047, 2048, 4999, 1, 4095] {
        assert_eq!(lists.chunk(index).unwrap(), Some(chunks[index]), "{index}");
    }
    assert_eq!(lists.chunk(5000).unwrap(), None);
    let read: Vec<Chunk> = lists.iter().map(|located| located.unwrap().chunk).collect();
    assert_eq!(read, chunks);
}

#[test]
fn nothing_of_a_removed_layer_stays() {
    let folder = Folder::new();
    let bytes = contents(10, 7);
    folder.build(&bytes);
    fs::write(folder.layers.dir.join("README"), "mine").unwrap();
    folder.layers.remove(&Digest::of(&bytes)).unwrap();
    folder.layers.remove(&Digest::of(&bytes)).unwrap();
    assert_eq!(folder.names(), ["README".to_owned()].into());
}

/// The items of a carried file with one layer, and only these chunks of it.
fn items(bytes: &[u8], chunks: impl Iterator<Item = usize>) -> Vec<Item> {
    let mut items = vec![Item::Layer(layer_of(bytes))];
    items.extend(lists_of(bytes).into_iter().map(Item::List));
    let parts: Vec<&[u8]> = bytes.chunks(CHUNK).collect();
    items.extend(chunks.map(|chunk| Item::Chunk(parts[chunk].to_vec())));
    items.push(Item::End);
    items
}

fn wanted(bytes: &[u8]) -> WantedLayer {
    let lists = lists_of(bytes).iter().map(|list| Digest::of(list)).collect();
    WantedLayer { layer: layer_of(bytes), lists }
}

fn import(
    folder: &Folder,
    wanted: Vec<WantedLayer>,
    items: Vec<Item>,
) -> Result<Imported, ImportError> {
    let mut import = Import::new(folder.layers.clone(), wanted);
    items.into_iter().try_for_each(|item| import.take(item))?;
    import.finish()
}

#[test]
fn a_carried_file_may_leave_out_what_is_here() {
    let folder = Folder::new();
    let old = contents(300_000, 7);
    folder.build(&old);
    let mut new = old.clone();
    new[100_000] ^= 1;
    let (unwanted, both) = (contents(50_000, 11), [wanted(&old), wanted(&new)].to_vec());
    let mut file = items(&unwanted, 0..2);
    file.pop();
    // One that is needed, and one that is here.
    file.extend(items(&new, [3, 5].into_iter()));
    let imported = import(&folder, both, file).unwrap();
    let supplied = CHUNK as u64;
    let bytes_copied = 300_000 - supplied;
    assert_eq!(imported, Imported { layers: 1, bytes_supplied: supplied, bytes_copied });
    assert!(folder.layers.is_whole(&layer_of(&new)));
    assert!(!folder.layers.is_whole(&layer_of(&unwanted)));
}

#[test]
fn a_carried_file_that_does_not_help_says_why() {
    let folder = Folder::new();
    let bytes = contents(300_000, 7);
    let want = || vec![wanted(&bytes)];
    let error = import(&folder, want(), vec![Item::End]).unwrap_err();
    assert!(matches!(error, ImportError::NoLayer { .. }), "{error}");
    let mut other = items(&bytes, 0..10);
    other[1] = Item::List(lists_of(&contents(300_000, 11)).remove(0));
    let error = import(&folder, want(), other).unwrap_err();
    assert!(matches!(error, ImportError::OtherList { .. }), "{error}");
    let early = vec![Item::Layer(layer_of(&bytes)), Item::Chunk(vec![1])];
    let error = import(&folder, want(), early).unwrap_err();
    assert!(matches!(error, ImportError::Order(_)), "{error}");
    let error = import(&folder, want(), items(&bytes, 0..9)).unwrap_err();
    let lacks = Digest::of(&bytes[9 * CHUNK..]);
    assert!(matches!(error, ImportError::Lacks { chunk, .. } if chunk == lacks), "{error}");
    // What came is kept.
    let imported = import(&folder, want(), items(&bytes, 9..10)).unwrap();
    assert_eq!(imported.bytes_supplied, CHUNK as u64);
}
