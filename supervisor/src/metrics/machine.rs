//! The machine's figures, as the kernel tells them at this moment. Reads only:
//! `/proc`, `/sys/class/thermal`, `/sys/block`, and the room of two folders.
//!
//! What cannot be read is absent: kernels differ. Never here: what a text means
//! ([`super::parse`]).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{Pid, SysconfVar, getppid, sysconf};
use wherry_bundle::metrics::{DEVICES_MAX, FileSystem, Machine, Pressure, Process, ThermalZone};

use super::parse;
use crate::clock;

/// The largest is `/proc/stat` with its interrupts; what is of use comes first.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// What nearly every kernel has, where one does not say.
const TICKS: u64 = 100;
const PAGE_BYTES: u64 = 4096;

/// Which folders' file systems, and whose bridge.
#[derive(Clone, Debug)]
pub struct Places {
    pub folders: Vec<PathBuf>,
    pub bridge: String,
}

#[must_use]
pub fn machine(places: &Places) -> Machine {
    let (cpus, cpu) = parse::cpu(&read("/proc/stat"), system(SysconfVar::CLK_TCK, TICKS));
    let is_disk = |name: &str| Path::new("/sys/block").join(name).exists();
    Machine {
        uptime_seconds: clock::boot_now().0 / 1000,
        cpus,
        cpu,
        load: parse::load(&read("/proc/loadavg")),
        memory: parse::memory(&read("/proc/meminfo")),
        file_systems: places.folders.iter().filter_map(|folder| file_system(folder)).collect(),
        disks: parse::disks(&read("/proc/diskstats"), is_disk),
        interfaces: parse::interfaces(&read("/proc/self/net/dev"), &places.bridge),
        thermal_zones: thermal_zones(),
        pressure: pressure(),
    }
}

/// The launcher, which is this process's parent, and this process.
#[must_use]
pub fn processes() -> [Option<Process>; 2] {
    let of = |pid: Pid| {
        let text = read(format!("/proc/{pid}/stat"));
        let page_bytes = system(SysconfVar::PAGE_SIZE, PAGE_BYTES);
        parse::process(&text, system(SysconfVar::CLK_TCK, TICKS), page_bytes)
    };
    [of(getppid()), of(Pid::this())]
}

fn pressure() -> Pressure {
    let of = |what| parse::pressure(&read(format!("/proc/pressure/{what}")));
    // That all processes wait for a processor cannot be.
    let (cpu_waiting, _) = of("cpu");
    let (memory_waiting, memory_stalled) = of("memory");
    let (io_waiting, io_stalled) = of("io");
    Pressure { cpu_waiting, memory_waiting, memory_stalled, io_waiting, io_stalled }
}

/// `Documentation/driver-api/thermal/sysfs-api.rst`. Zones are numbered without
/// gaps, but for those that went.
fn thermal_zones() -> Vec<ThermalZone> {
    let zone = |number: u32| {
        let folder = format!("/sys/class/thermal/thermal_zone{number}");
        let temperature = read(format!("{folder}/temp")).trim().parse().ok()?;
        let kind = read(format!("{folder}/type")).trim().to_owned();
        Some(ThermalZone { number, kind, temperature })
    };
    let zones_max = u32::try_from(DEVICES_MAX).unwrap_or(u32::MAX);
    (0..zones_max).filter_map(zone).collect()
}

fn file_system(folder: &Path) -> Option<FileSystem> {
    let space = statvfs(folder).ok()?;
    // Their types differ between architectures.
    #[allow(clippy::useless_conversion)]
    let [unit, blocks, free, available, files, files_free] = [
        u64::from(space.fragment_size()),
        u64::from(space.blocks()),
        u64::from(space.blocks_free()),
        u64::from(space.blocks_available()),
        u64::from(space.files()),
        u64::from(space.files_free()),
    ];
    Some(FileSystem {
        folder: folder.display().to_string(),
        size_bytes: blocks.saturating_mul(unit),
        free_bytes: free.saturating_mul(unit),
        available_bytes: available.saturating_mul(unit),
        files,
        files_free,
    })
}

/// Empty if it cannot be read.
fn read(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    let result =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    if result.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn system(what: SysconfVar, default: u64) -> u64 {
    let known = sysconf(what).ok().flatten().and_then(|value| u64::try_from(value).ok());
    known.filter(|value| *value > 0).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every Linux has, on this one.
    #[test]
    fn this_machine_has_figures() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let places =
            Places { folders: vec![folder.path().to_owned(), gone], bridge: "wherry0".into() };
        let machine = machine(&places);
        assert!(machine.cpus > 0 && machine.cpu.is_some_and(|cpu| cpu.idle > 0), "{machine:?}");
        assert!(machine.load.is_some() && machine.uptime_seconds > 0, "{machine:?}");
        assert!(machine.memory.total > machine.memory.available, "{machine:?}");
        let [space] = &machine.file_systems[..] else { panic!("{machine:?}") };
        assert!(space.size_bytes >= space.free_bytes && space.size_bytes > 0, "{space:?}");
        let [parent, own] = processes();
        assert!(parent.is_some() && own.is_some_and(|own| own.resident_bytes > 1 << 20));
        assert_eq!(read("/proc/nothing"), "");
    }
}
