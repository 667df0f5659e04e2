//! What the kernel's files say, line by line. Pure; a line that is not
//! understood is passed over, and a figure that is not there is absent.
//!
//! Formats: `proc(5)`, the kernel's `Documentation/admin-guide/iostats.rst` and
//! `Documentation/accounting/psi.rst`.

use wherry_bundle::metrics::{CpuTimes, Disk, Interface, Memory, Process, Traffic};

use crate::supervisor::memory::kib;

/// What `/proc/diskstats` counts, whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;
/// Devices that are no disks of their own: files, RAM, and what is made of
/// other disks.
const NO_DISKS: [&str; 5] = ["loop", "ram", "zram", "dm-", "md"];
/// What a pod's link has of the bridge's name, whatever that is.
const LINK_START_BYTES: usize = 5;

/// `/proc/stat`: how many processors there are, and their times, counted in so
/// many ticks a second.
#[must_use]
pub fn cpu(text: &str, ticks: u64) -> (u32, Option<CpuTimes>) {
    let mut cpus = 0;
    let mut sum = None;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        match fields.next().and_then(|name| name.strip_prefix("cpu")) {
            Some("") => sum = cpu_times(fields, ticks),
            Some(_) => cpus += 1,
            None => {}
        }
    }
    (cpus, sum)
}

fn cpu_times<'a>(fields: impl Iterator<Item = &'a str>, ticks: u64) -> Option<CpuTimes> {
    let mut millis = fields.map(|field| millis(field.parse().ok()?, ticks));
    let mut next = || millis.next()?;
    Some(CpuTimes {
        user: next()?,
        nice: next()?,
        system: next()?,
        idle: next()?,
        iowait: next().unwrap_or_default(),
        irq: next().unwrap_or_default(),
        softirq: next().unwrap_or_default(),
        steal: next().unwrap_or_default(),
    })
}

fn millis(count: u64, ticks: u64) -> Option<u64> {
    count.checked_mul(1000)?.checked_div(ticks)
}

/// `/proc/loadavg`, in hundredths.
#[must_use]
pub fn load(text: &str) -> Option<[u32; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| {
        let (whole, part) = field.split_once('.')?;
        let whole: u32 = whole.parse().ok()?;
        let part: u32 = part.parse().ok().filter(|part| *part < 100)?;
        whole.checked_mul(100)?.checked_add(part)
    });
    Some([fields.next()??, fields.next()??, fields.next()??])
}

/// `/proc/meminfo`.
#[must_use]
pub fn memory(text: &str) -> Memory {
    let field = |name| kib(text, name);
    Memory {
        total: field("MemTotal:"),
        free: field("MemFree:"),
        available: field("MemAvailable:"),
        buffers: field("Buffers:"),
        cached: field("Cached:"),
        swap_total: field("SwapTotal:"),
        swap_free: field("SwapFree:"),
    }
}

/// `/proc/diskstats`: of those that `is_disk` says are whole disks, and that
/// were used at all.
#[must_use]
pub fn disks(text: &str, is_disk: impl Fn(&str) -> bool) -> Vec<Disk> {
    let disk = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?;
        if NO_DISKS.iter().any(|prefix| name.starts_with(prefix)) || !is_disk(name) {
            return None;
        }
        let counts: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let read_bytes = counts.get(2)?.saturating_mul(SECTOR_BYTES);
        let written_bytes = counts.get(6)?.saturating_mul(SECTOR_BYTES);
        let disk =
            Disk { name: name.to_owned(), read_bytes, written_bytes, busy_millis: *counts.get(9)? };
        (read_bytes > 0 || written_bytes > 0).then_some(disk)
    };
    text.lines().filter_map(disk).collect()
}

/// `/proc/net/dev`, without loopback and the links of pods, which begin as the
/// bridge's name does and have a number: they come and go with the pods.
#[must_use]
pub fn interfaces(text: &str, bridge: &str) -> Vec<Interface> {
    // Of a long name the links have the start only.
    let start = bridge.get(..LINK_START_BYTES).unwrap_or(bridge);
    let is_pods = |name: &str| {
        let parts = name.rsplit_once('-').filter(|(stem, _)| stem.starts_with(start));
        parts.is_some_and(|(_, number)| number.parse::<u16>().is_ok())
    };
    let interface = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let name = name.trim();
        if name == "lo" || is_pods(name) {
            return None;
        }
        let counts: Vec<u64> =
            counts.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        let traffic = |from: usize| {
            Some(Traffic {
                bytes: *counts.get(from)?,
                packets: *counts.get(from + 1)?,
                errors: *counts.get(from + 2)?,
                dropped: *counts.get(from + 3)?,
            })
        };
        Some(Interface { name: name.to_owned(), received: traffic(0)?, sent: traffic(8)? })
    };
    text.lines().filter_map(interface).collect()
}

/// A file of `/proc/pressure`: microseconds of some, and of full.
#[must_use]
pub fn pressure(text: &str) -> (Option<u64>, Option<u64>) {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(kind))?;
        line.rsplit_once("total=")?.1.trim().parse().ok()
    };
    (total("some"), total("full"))
}

/// `/proc/PID/stat`, with so many ticks a second and bytes a page.
#[must_use]
pub fn process(text: &str, ticks: u64, page_bytes: u64) -> Option<Process> {
    // The name before may have anything in it.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // Fields 14, 15 and 24; the first here is the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let used = field(14)?.saturating_add(field(15)?);
    Some(Process {
        cpu_millis: millis(used, ticks)?,
        resident_bytes: field(24)?.saturating_mul(page_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        let text = "cpu  200 2 100 4000 25 0 14 39 7 0\ncpu0 100 1 50 2000 12 0 7 20 0 0\n\
            cpu1 100 1 50 2000 13 0 7 19 0 0\nintr 1 2 3\nctxt 5\n";
        let times = CpuTimes {
            user: 2_000,
            nice: 20,
            system: 1_000,
            idle: 40_000,
            iowait: 250,
            irq: 0,
            softirq: 140,
            steal: 390,
        };
        assert_eq!(cpu(text, 100), (2, Some(times)));
        assert_eq!(cpu("cpu 1 2\n", 100), (0, None));
        assert_eq!(cpu("cpu 1 2 3 4\n", 0), (0, None));
        assert_eq!(cpu("", 100), (0, None));
    }

    #[test]
    fn loads() {
        assert_eq!(load("6.29 0.05 13.28 7/127 25004\n"), Some([629, 5, 1_328]));
        for text in ["", "1.0", "1.00 2.00", "a.00 1.00 1.00", "1.234 1.00 1.00"] {
            assert_eq!(load(text), None, "{text}");
        }
    }

    #[test]
    fn memory_as_the_kernel_says() {
        let text = "MemTotal:       24683656 kB\nMemFree:         6128208 kB\n\
            MemAvailable:   22733624 kB\nBuffers:          112108 kB\nCached:  15913208 kB\n\
            SwapCached:            7 kB\nSwapTotal:             0 kB\nHugePages_Total:   0\n";
        let memory = memory(text);
        assert_eq!((memory.total, memory.available), (Some(24_683_656), Some(22_733_624)));
        assert_eq!((memory.cached, memory.swap_total), (Some(15_913_208), Some(0)));
        assert_eq!(memory.swap_free, None);
    }

    #[test]
    fn only_disks_that_are_used() {
        let text = "   7 0 loop0 824 4 2228 450 117 98 1981 398 0 68 504 0 0 0 0 81 14\n\
             179 0 mmcblk0 800 4 2000 450 100 98 3000 398 0 68 504\n\
             179 1 mmcblk0p1 800 4 2000 450 100 98 3000 398 0 68 504\n\
             8 0 sda 0 0 0 0 0 0 0 0 0 0 0\n  8 16 sdb 1 2 3\n";
        let disk = Disk {
            name: "mmcblk0".into(),
            read_bytes: 1_024_000,
            written_bytes: 1_536_000,
            busy_millis: 68,
        };
        assert_eq!(disks(text, |name| !name.ends_with("p1")), [disk]);
    }

    #[test]
    fn interfaces_but_for_the_pods() {
        let text = "Inter-|   Receive                          |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
            lo: 1280 295 0 0 0 0 0 0 1280 295 0 0 0 0 0 0\n  \
            eth0: 100 10 1 2 0 0 0 0 200 20 3 4 0 0 0 0\nwherry0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
            wherry-17: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  short: 1 2\n";
        let found = interfaces(text, "wherry0");
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["eth0", "wherry0"]);
        let traffic = |bytes, packets, errors, dropped| Traffic { bytes, packets, errors, dropped };
        assert_eq!(
            (found[0].received, found[0].sent),
            (traffic(100, 10, 1, 2), traffic(200, 20, 3, 4))
        );
    }

    #[test]
    fn pressures() {
        let text = "some avg10=76.03 avg60=84.22 avg300=60.53 total=17728813718\n\
            full avg10=0.00 avg60=0.00 avg300=0.21 total=148345174\n";
        assert_eq!(pressure(text), (Some(17_728_813_718), Some(148_345_174)));
        assert_eq!(pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"), (Some(5), None));
        assert_eq!(pressure(""), (None, None));
    }

    #[test]
    fn a_process_whatever_its_name() {
        let text = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 5 0 9 \
            12345678 512 18446744073709551615 1 1";
        let process = process(text, 100, 4096).unwrap();
        assert_eq!(process, Process { cpu_millis: 2_000, resident_bytes: 512 * 4096 });
        assert_eq!(super::process("4711 (a) S 1", 100, 4096), None);
    }
}
