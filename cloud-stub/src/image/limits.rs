//! What an image may cost, before it is believed.

/// The most that one import may use up. A larger image is refused.
#[derive(Clone, Debug)]
pub struct ImportLimits {
    /// Uncompressed bytes of one layer's tar.
    pub layer_bytes_max: u64,
    /// Uncompressed bytes of all layers of one import, all platforms together.
    pub total_bytes_max: u64,
    /// One file in a layer.
    pub file_bytes_max: u64,
    /// Files, folders, links and whiteouts of all layers of one import: each
    /// is kept in memory (about 200 bytes) until the import ends.
    pub entries_max: usize,
    /// Entries of the archive that holds the image.
    pub archive_entries_max: usize,
    /// Uncompressed bytes for each compressed byte, once a layer has more
    /// than [`RATIO_FREE_BYTES`]. Zeros compress about a thousandfold with
    /// gzip; programs and text seldom more than tenfold.
    pub ratio_max: u64,
    /// Images of one import: names times platforms.
    pub images_max: usize,
}

/// Below this many uncompressed bytes the ratio does not matter.
pub const RATIO_FREE_BYTES: u64 = 64 << 20;
/// An index, manifest or configuration in JSON. Containerd reads no more
/// than 8 MiB; real ones have some 10 KiB.
pub const JSON_BYTES_MAX: u64 = 4 << 20;
/// Indexes within indexes.
pub const INDEX_DEPTH_MAX: usize = 4;
/// `/etc/passwd` and `/etc/group` of an image.
pub const ACCOUNT_FILE_BYTES_MAX: u64 = 1 << 20;
/// Symbolic links on the way to one file, as in the kernel.
pub const LINKS_MAX: usize = 40;
/// Length of a whole path in a layer (Linux: `PATH_MAX`).
pub const LAYER_PATH_BYTES_MAX: usize = 4095;
/// Length of one name in a path (Linux: `NAME_MAX`; squashfs has 256).
pub const LAYER_NAME_BYTES_MAX: usize = 255;
/// Folders within folders. Real trees stay below 50; each level costs a
/// look-up for every entry below it.
pub const LAYER_DEPTH_MAX: usize = 128;
/// Device numbers as squashfs keeps them: 12 and 20 bits.
pub const DEVICE_MAJOR_MAX: u64 = 0xfff;
/// See [`DEVICE_MAJOR_MAX`].
pub const DEVICE_MINOR_MAX: u64 = 0xf_ffff;
/// Extended attributes of one entry, names and values (Linux keeps at most
/// 64 KiB in one value).
pub const XATTRS_BYTES_MAX: usize = 128 << 10;
/// A PAX or GNU header of one entry: path, link and attributes.
pub const HEADER_BYTES_MAX: u64 = 256 << 10;

impl Default for ImportLimits {
    /// Sized for gateways whose flash holds a few hundred megabytes.
    fn default() -> Self {
        Self {
            layer_bytes_max: 4 << 30,
            total_bytes_max: 16 << 30,
            file_bytes_max: 2 << 30,
            entries_max: 500_000,
            archive_entries_max: 10_000,
            ratio_max: 200,
            images_max: 64,
        }
    }
}
