//! Number of processes and threads; the same files on v1 and v2
//! (cgroup-v1/pids.rst).

use crate::tree::Place;
use crate::{Error, file};

pub(crate) const LIMIT: &str = "pids.max";

pub(crate) fn limit(place: &Place, pids: Option<u32>) -> Result<(), Error> {
    let text = pids.map_or("max".into(), |pids| pids.to_string());
    file::write(&place.folder.join(LIMIT), &text)
}

pub(crate) fn count(place: &Place) -> Result<u64, Error> {
    file::number(&place.folder.join("pids.current"))
}
