//! How much of their time processes wait for what there is too little of
//! (`Documentation/accounting/psi.rst`). v2 only, and where the kernel counts.

use std::path::Path;

use crate::{Error, file};

/// Hundredths of a percent of the last ten seconds in which some process of a
/// cgroup waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub cpu: u16,
    pub memory: u16,
    pub io: u16,
}

pub(crate) fn of(folder: &Path) -> Result<Option<Pressure>, Error> {
    let read = |name: &str| {
        let path = folder.join(name);
        let Some(text) = file::optional(file::read(&path))? else { return Ok(None) };
        some_avg10(&text).map(Some).ok_or_else(|| file::malformed(&path, &text))
    };
    let (cpu, memory, io) = (read("cpu.pressure")?, read("memory.pressure")?, read("io.pressure")?);
    Ok(cpu.zip(memory).zip(io).map(|((cpu, memory), io)| Pressure { cpu, memory, io }))
}

/// Of `some avg10=1.25 avg60=…`.
fn some_avg10(text: &str) -> Option<u16> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, part) = value.split_once('.')?;
    let (whole, part): (u16, u16) = (whole.parse().ok()?, part.get(..2)?.parse().ok()?);
    whole.checked_mul(100)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let text = "some avg10=12.05 avg60=0.00 avg300=0.00 total=7\nfull avg10=1.00 total=3\n";
        assert_eq!(some_avg10(text), Some(1205));
        assert_eq!(some_avg10("some avg10=100.00 avg60=0\n"), Some(10_000));
        for text in ["", "full avg10=1.00", "some avg60=1.00", "some avg10=x.00", "some avg10=1"] {
            assert_eq!(some_avg10(text), None, "{text}");
        }
    }

    #[test]
    fn where_nobody_counts_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of(folder.path()).unwrap(), None);
        for (name, value) in [("cpu", "1.00"), ("memory", "2.50"), ("io", "0.00")] {
            let text = format!("some avg10={value} avg60=0.00 avg300=0.00 total=7\n");
            std::fs::write(folder.path().join(format!("{name}.pressure")), text).unwrap();
        }
        let all = Pressure { cpu: 100, memory: 250, io: 0 };
        assert_eq!(of(folder.path()).unwrap(), Some(all));
    }
}
