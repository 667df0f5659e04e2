//! `wherry-quota FOLDER CLAIM BYTES`: provides a claim as the launcher does, fills it
//! as a container's user does, and says how far that went and what the node sees
//! of it. For machines whose data file system has project quotas.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use wherry::claims::{Measured, Surveyor};
use wherry_bundle::Name;
use wherry_runtime::claims;
use wherry_runtime::proto::ClaimSpec;

const USER: u32 = 1000;
const PIECE_BYTES: usize = 64 * 1024;
/// Four times what any of the tests allows.
const PIECES_MAX: usize = 256;
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, claim, bytes] = &words[..] else { bail!("usage: FOLDER CLAIM BYTES") };
    let (folder, name) = (Path::new(folder), Name::new(claim)?);
    let (bytes_max, owner) = (bytes.parse()?, (USER, USER));
    claims::provide(folder, &ClaimSpec { name: name.clone(), bytes_max, owner, gid: None })?;
    let file = File::options().append(true).create(true).open(folder.join(claim).join("file"))?;
    // The kernel lets CAP_SYS_RESOURCE write on.
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    let (sender, news) = mpsc::channel();
    // Root looks: the folders are nobody else's.
    let look = |folder: &Path| -> Result<Measured> {
        let sink = move |measured| drop(sender.send(measured));
        let _surveyor = Surveyor::new(folder.to_owned(), PATIENCE, sink);
        loop {
            let measured = news.recv_timeout(PATIENCE).context("nobody measures")?;
            if measured.claim == name {
                return Ok(measured);
            }
        }
    };
    setgroups(&[])?;
    setresgid(group, group, Gid::from_raw(0))?;
    setresuid(user, user, Uid::from_raw(0))?;
    let written = fill(file)?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
    let held = look(folder)?.held.context("no folder")?;
    println!("written {written}, held {}, limited {}", held.bytes, held.is_limited);
    Ok(())
}

/// How much could be written until the limit, or [`PIECES_MAX`].
fn fill(mut file: File) -> Result<usize> {
    let piece = vec![1; PIECE_BYTES];
    let mut written = 0;
    for _ in 0..PIECES_MAX {
        match file.write(&piece) {
            Ok(bytes) => written += bytes,
            Err(error)
                if matches!(error.kind(), ErrorKind::QuotaExceeded | ErrorKind::StorageFull) =>
            {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}
