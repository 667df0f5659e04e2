//! The boot clock: milliseconds since boot, sleep included, never set back.
//! `clock_gettime(2)`, `CLOCK_BOOTTIME`.

use nix::time::{ClockId, clock_gettime};

/// Now.
#[must_use]
pub fn boot_millis() -> u64 {
    // Fails for unknown clocks only; this one is older than every kernel
    // that the launcher runs on.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds * 1000 + nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_agrees_with_the_kernels_uptime() {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let millis = super::boot_millis() as f64;
        assert!((millis - uptime * 1000.0).abs() < 2000.0, "{millis} {uptime}");
    }
}
