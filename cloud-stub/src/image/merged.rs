//! The folder tree that a container would see: a stack of layers, merged as
//! overlayfs does. Used to look things up; nothing is extracted.

use std::collections::BTreeMap;

use super::limits::LINKS_MAX;
use super::tree::{Attrs, Body, LayerTree, Path, below};

/// The tree of the layers so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Merged {
    nodes: BTreeMap<Path, Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Dir(Attrs),
    Symlink(Vec<u8>),
    File(FileAt),
    Other,
}

/// Where a regular file's contents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileAt {
    /// Counted from the bottom, from 0.
    pub layer: usize,
    /// In the layer's uncompressed tar.
    pub offset: u64,
    pub size: u64,
}

impl Merged {
    /// Removes what `tree` hides of the layers below it.
    pub fn hide(&mut self, tree: &LayerTree) {
        for path in &tree.whiteouts {
            self.remove_below(path);
            self.nodes.remove(path);
        }
        for path in &tree.opaques {
            self.remove_below(path);
        }
    }

    /// Puts a complete `tree` on top, as layer number `layer`.
    pub fn add(&mut self, layer: usize, tree: &LayerTree) {
        for (path, &index) in &tree.paths {
            let inode = &tree.inodes[index];
            let node = match &inode.body {
                Body::Dir { .. } => Node::Dir(inode.attrs.clone()),
                Body::Symlink(target) => Node::Symlink(target.clone()),
                &Body::File { offset, size } => Node::File(FileAt { layer, offset, size }),
                Body::Char { .. } | Body::Block { .. } | Body::Fifo => Node::Other,
            };
            if !matches!(node, Node::Dir(_)) {
                self.remove_below(path);
            }
            self.nodes.insert(path.clone(), node);
        }
    }

    pub fn dir_attrs(&self, path: &[u8]) -> Option<&Attrs> {
        match self.nodes.get(path)? {
            Node::Dir(attrs) => Some(attrs),
            Node::Symlink(_) | Node::File(_) | Node::Other => None,
        }
    }

    /// The regular file at `path`, following symbolic links as a process
    /// whose root this is would. `None` if there is none, or links in a circle.
    pub fn file(&self, path: &[u8]) -> Option<FileAt> {
        // What is still to walk, next part last.
        let mut todo: Vec<Vec<u8>> = parts_reversed(path);
        let mut at: Path = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                let parent = at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                at.truncate(parent);
                continue;
            }
            let folder = at.len();
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(&part);
            match self.nodes.get(&at)? {
                Node::Dir(_) => {}
                Node::File(file) => return todo.is_empty().then_some(*file),
                Node::Other => return None,
                Node::Symlink(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return None;
                    }
                    at.truncate(if target.starts_with(b"/") { 0 } else { folder });
                    todo.extend(parts_reversed(target));
                }
            }
        }
        None
    }

    fn remove_below(&mut self, path: &Path) {
        let gone: Vec<Path> = self.nodes.range(below(path)).map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }
}

fn parts_reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(<[u8]>::to_vec).rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Merged {
        let attrs = Attrs { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() };
        let file = FileAt { layer: 1, offset: 512, size: 9 };
        let link = |to: &str| Node::Symlink(to.as_bytes().to_vec());
        let nodes = [
            ("etc", link("../../usr/./etc")),
            ("usr", Node::Dir(attrs.clone())),
            ("usr/etc", Node::Dir(attrs)),
            ("usr/etc/passwd", link("/usr/etc/real")),
            ("usr/etc/real", Node::File(file)),
            ("usr/etc/a", link("b")),
            ("usr/etc/b", link("a")),
            ("usr/etc/null", Node::Other),
        ];
        Merged { nodes: nodes.into_iter().map(|(p, n)| (p.as_bytes().to_vec(), n)).collect() }
    }

    #[test]
    fn links_stay_inside_the_root() {
        let tree = tree();
        let found = Some(FileAt { layer: 1, offset: 512, size: 9 });
        assert_eq!(tree.file(b"etc/passwd"), found);
        assert_eq!(tree.file(b"/usr/../etc/real"), found);
        for none in ["etc", "etc/a", "etc/null", "etc/real/x", "etc/none", ""] {
            assert_eq!(tree.file(none.as_bytes()), None, "{none}");
        }
    }
}
