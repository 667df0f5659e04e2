//! Opening the store, whatever a power cut, a kill or bad flash left.
//!
//! | database | mirror | what happens |
//! |---|---|---|
//! | whole, as new as the mirror or newer | any | used; the mirror is brought up to date |
//! | damaged, empty or older | there | put aside; a new one is filled from the mirror |
//! | damaged | none | put aside; a new one begins empty |
//! | not there | none | a new node |
//!
//! An error of the environment (no room, no right to write) harms nothing
//! and is returned as it is.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use wherry_bundle::Generation;

use crate::clock::boot_id_text;

use super::contents::{Loaded, database_path, load, restore};
use super::disk::{Disk, Keeping};
use super::error::{RecordError, StoreError};
use super::files::{make_dir, sync_dir};
use super::mirror::{Found, Mirrors};
use super::outbox::{Outbox, SEQ_JUMP};
use super::record::{BundleRef, Mirror, OutboxMark};
use super::state::State;
use super::{Generations, Stored};

/// Broken databases that are kept for people to look at: more would only
/// fill the flash.
const BROKEN_KEPT_MAX: usize = 2;
const BROKEN_PREFIX: &str = "broken-";
/// Opening a damaged database might kill the process instead of failing.
/// After so many starts that did not come through, it counts as damaged.
const OPEN_ATTEMPTS_MAX: u32 = 3;
const ATTEMPTS_NAME: &str = "opening";
const DIR_MODE: u32 = 0o700;
const LOCK_NAME: &str = "lock";
/// A process that was killed while it started a keeper leaves its lock to
/// that for a moment.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// What had to be mended on opening. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Recovery {
    #[error(
        "the database was {why}; it was put aside as {} and generation {generation} \
         restored from the mirror; events that waited in it are lost", aside.display()
    )]
    Restored { why: String, aside: PathBuf, generation: Generation },
    #[error(
        "the database was {why} and there is no mirror; it was put aside as {} and \
         the node starts empty", aside.display()
    )]
    StateLost { why: String, aside: PathBuf },
    #[error("the mirror {} was damaged ({error}) and written anew", path.display())]
    MirrorDamaged { path: PathBuf, error: RecordError },
}

/// What the mirror holds, without touching anything.
pub(super) fn salvage(dir: &Path) -> Result<Generations, StoreError> {
    let (_, found) = Mirrors::load(dir)?;
    let Mirror { meta, current, last_good, .. } = found.newest.unwrap_or_default();
    let stored = |reference: Option<BundleRef>, envelope: Option<Vec<u8>>| {
        let generation = Generation(reference?.generation);
        Some(Stored { generation, envelope: envelope? })
    };
    Ok(Generations {
        current: stored(meta.current, current),
        last_good: stored(meta.last_good, last_good),
        highest_seen: Generation(meta.highest_seen),
    })
}

pub(super) fn open(dir: &Path, keeping: Keeping) -> Result<(State, Vec<Recovery>), StoreError> {
    make_private(dir)?;
    let lock = take_lock(dir)?;
    let (mirrors, Found { newest, damaged }) = Mirrors::load(dir)?;
    let (disk, loaded, recovery) = open_or_mend(dir, &keeping, newest.as_ref())?;
    let mut recoveries: Vec<Recovery> = recovery.into_iter().collect();
    let meta = loaded.meta.unwrap_or_default();
    // After a restoration events are numbered from higher up, and that has to
    // hold for the next restoration too: also if the power went away before
    // the mirror was told.
    let restored_before =
        |mirror: &Mirror| loaded.mark.used_seq.saturating_sub(mirror.used_seq) >= SEQ_JUMP;
    let mirror_stale = !damaged.is_empty()
        || !recoveries.is_empty()
        || newest.as_ref().is_none_or(|m| m.meta != meta || restored_before(m));
    let mut state = State {
        dir: dir.to_owned(),
        keeping,
        disk: Some(disk),
        is_used: true,
        uncertain: false,
        recoveries: Vec::new(),
        mirror_stale: mirror_stale && meta.revision > 0,
        meta,
        refused: loaded.refused,
        failed: loaded.failed,
        trial: loaded.trial,
        jobs: loaded.jobs,
        mirrors,
        outbox: Outbox::load(loaded.mark, &loaded.events),
        _lock: lock,
    };
    if let Err(error) = state.refresh_mirror() {
        // Pods have to start on a full disk too; the next change tries again.
        log::error!("the mirror is not up to date: {error}");
    }
    for (path, error) in damaged {
        recoveries.push(Recovery::MirrorDamaged { path, error });
    }
    Ok((state, recoveries))
}

/// The database in `dir`, whole: as it is, or as the table above says.
pub(super) fn open_or_mend(
    dir: &Path,
    keeping: &Keeping,
    mirror: Option<&Mirror>,
) -> Result<(Disk, Loaded, Option<Recovery>), StoreError> {
    let database = database_path(dir);
    let why = match open_database(dir, &database, keeping, mirror)? {
        Ok((disk, loaded)) => return Ok((disk, loaded, None)),
        Err(why) => why,
    };
    let aside = put_aside(dir, &database)?;
    let (disk, loaded) = start_anew(&database, keeping, mirror)?;
    let recovery = match mirror {
        Some(mirror) => {
            let generation = Generation(mirror.meta.current.map_or(0, |c| c.generation));
            Recovery::Restored { why, aside, generation }
        }
        None => Recovery::StateLost { why, aside },
    };
    Ok((disk, loaded, Some(recovery)))
}

type Opened = (Disk, Loaded);

/// The inner error says what is wrong with the database itself.
fn open_database(
    dir: &Path,
    database: &Path,
    keeping: &Keeping,
    mirror: Option<&Mirror>,
) -> Result<Result<Opened, String>, StoreError> {
    if !database.exists() && mirror.is_some() {
        return Ok(Err("missing".into()));
    }
    let attempts = attempts_before(dir);
    if attempts >= OPEN_ATTEMPTS_MAX {
        clear_attempts(dir)?;
        return Ok(Err(format!("not opened in {attempts} starts")));
    }
    note_attempt(dir, attempts + 1);
    let opened =
        Disk::open(database, keeping).and_then(|disk| load(&disk).map(|loaded| (disk, loaded)));
    if let Err(error @ StoreError::Gone { .. }) = opened {
        // As if it had been this process: it counts.
        return Err(error);
    }
    clear_attempts(dir)?;
    let (disk, loaded) = match opened {
        Ok(opened) => opened,
        Err(error) if is_environment(&error) => return Err(error),
        Err(error) => return Ok(Err(format!("damaged ({error})"))),
    };
    let held = loaded.meta.as_ref().map_or(0, |meta| meta.revision);
    let mirrored = mirror.map_or(0, |mirror| mirror.meta.revision);
    Ok(if held >= mirrored {
        Ok((disk, loaded))
    } else if loaded.meta.is_none() {
        Err("empty".into())
    } else {
        Err(format!("older than its mirror (revision {held}, not {mirrored})"))
    })
}

fn start_anew(
    database: &Path,
    keeping: &Keeping,
    mirror: Option<&Mirror>,
) -> Result<Opened, StoreError> {
    let disk = Disk::open(database, keeping)?;
    if let Some(mirror) = mirror {
        let mark = OutboxMark { used_seq: mirror.used_seq.saturating_add(SEQ_JUMP), dropped: 0 };
        restore(&disk, mirror, mark)?;
    }
    let loaded = load(&disk)?;
    Ok((disk, loaded))
}

/// Such an error says nothing about the database. Nor does a record of a
/// newer build: its checksum was right.
fn is_environment(error: &StoreError) -> bool {
    match error {
        StoreError::Record { source: RecordError::Version { .. }, .. }
        | StoreError::Locked { .. }
        | StoreError::Start { .. }
        | StoreError::Gone { .. } => return true,
        StoreError::Io { .. } | StoreError::Database { .. } | StoreError::Kept { .. } => {}
        StoreError::Record { .. }
        | StoreError::Lost { .. }
        | StoreError::NotNewer { .. }
        | StoreError::NotCurrent { .. }
        | StoreError::TooLarge { .. } => return false,
    }
    let environment = [
        libc::EACCES,
        libc::EDQUOT,
        libc::EINTR,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOSPC,
        libc::EPERM,
        libc::EROFS,
    ];
    error.errno().is_some_and(|errno| environment.contains(&errno))
}

/// Envelopes hold secrets: root alone may look.
fn make_private(dir: &Path) -> Result<(), StoreError> {
    make_dir(dir)?;
    let mode = fs::metadata(dir).map_err(StoreError::io("examine", dir))?.permissions().mode();
    if mode & 0o777 == DIR_MODE {
        return Ok(());
    }
    let private = Permissions::from_mode(DIR_MODE);
    fs::set_permissions(dir, private).map_err(StoreError::io("protect", dir))
}

fn take_lock(dir: &Path) -> Result<Flock<File>, StoreError> {
    let path = dir.join(LOCK_NAME);
    let mut file = File::create(&path).map_err(StoreError::io("create", &path))?;
    let give_up_at = Instant::now() + LOCK_WAIT;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, _)) if Instant::now() < give_up_at => file,
            Err(_) => return Err(StoreError::Locked { path: dir.to_owned() }),
        };
        thread::sleep(LOCK_POLL);
    }
}

/// Moves the database away, and the oldest of those moved before.
fn put_aside(dir: &Path, database: &Path) -> Result<PathBuf, StoreError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(BROKEN_PREFIX));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    let kept = numbers.len().saturating_sub(BROKEN_KEPT_MAX - 1);
    for number in &numbers[..kept] {
        let old = dir.join(format!("{BROKEN_PREFIX}{number}"));
        fs::remove_dir_all(&old).map_err(StoreError::io("remove", &old))?;
    }
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    let aside = dir.join(format!("{BROKEN_PREFIX}{next}"));
    match fs::rename(database, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("rename", database)(error))
        }
        _ => sync_dir(dir).map(|()| aside),
    }
}

/// Those since the machine booted: where the power goes away again and again,
/// that says nothing about the database.
fn attempts_before(dir: &Path) -> u32 {
    let text = fs::read_to_string(dir.join(ATTEMPTS_NAME)).unwrap_or_default();
    match text.split_once(' ') {
        Some((boot, attempts)) if boot == boot_id_text() => attempts.parse().unwrap_or(0),
        Some(_) | None => 0,
    }
}

/// Not synced: it has to outlive the process, not the power. A disk that has
/// no room for it may still hold a database that opens.
fn note_attempt(dir: &Path, attempts: u32) {
    let path = dir.join(ATTEMPTS_NAME);
    if let Err(error) = fs::write(&path, format!("{} {attempts}", boot_id_text())) {
        log::warn!("cannot write {}: {error}", path.display());
    }
}

fn clear_attempts(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(ATTEMPTS_NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", &path)(error))
        }
        _ => Ok(()),
    }
}
