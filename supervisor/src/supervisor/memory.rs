//! How much memory there is, and how much new processes can have. Reads only.

/// `MemAvailable` of `/proc/meminfo` (`proc(5)`); `None` if the kernel does not
/// say.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    field("MemAvailable:")
}

/// `MemTotal`: what the kernel left for everything else.
#[must_use]
pub fn total_bytes() -> Option<u64> {
    field("MemTotal:")
}

fn field(name: &str) -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn parse(text: &str, name: &str) -> Option<u64> {
    kib(text, name)?.checked_mul(1024)
}

/// A line of `/proc/meminfo`; its `name` ends with the colon.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let name = "MemAvailable:";
        assert_eq!(parse("MemFree: 1 kB\nMemAvailable:   2048 kB\n", name), Some(2 << 20));
        assert_eq!(parse("MemFree: 1 kB\n", name), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
        assert!(total_bytes() > available_bytes());
    }
}
