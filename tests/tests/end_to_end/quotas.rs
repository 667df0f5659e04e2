//! Claims on a file system with project quotas. The kernel of a development
//! machine may be without them; Debian's has them, so this is on a machine of its
//! own, whoever runs it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wherry_rig::{Arch, Machine, Rig};
use wherry_tests::host::binary;
use wherry_tests::run::run;

const SHORT: Duration = Duration::from_secs(60);
const DISK_MIB: u64 = 128;
const MIB: u64 = 1 << 20;

#[test]
fn a_claim_on_a_file_system_with_quotas_holds_no_more() {
    scenario().map_err(|error| panic!("{error:#}")).unwrap();
}

fn scenario() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("wherry-test-quota").tempdir()?;
    let files = folder.path().join("files");
    program(&files.join("lib"))?;
    let mut machine = Machine::new(Arch::X86_64);
    machine.modules.push("quota_v2".into());
    let disk = folder.path().join("disk");
    make_disk(&disk, &files)?;
    machine.disk = Some(disk);
    let rig = machine.boot()?;
    let sh = |script: &str| rig.check(&["sh", "-c", script], SHORT);
    sh("umount /data && mount -t ext4 -o prjquota /dev/vda /data")?;

    let (written, held, limited) = fill(&rig, "one", 4 * MIB)?;
    ensure!(limited, "not limited");
    ensure!((3 * MIB..=4 * MIB).contains(&written), "{written} were written");
    ensure!(held <= 4 * MIB && held >= written, "{held} of {written}");
    // Each has its own limit, and what is full of one does not fill the other.
    let (written, ..) = fill(&rig, "two", 2 * MIB)?;
    ensure!((MIB..=2 * MIB).contains(&written), "{written} were written");
    // A larger one goes on from where it was; so it does after a boot.
    let (written, held, _) = fill(&rig, "one", 6 * MIB)?;
    ensure!((MIB..=2 * MIB).contains(&written), "{written} were written");
    sh("umount /data && mount -t ext4 -o prjquota /dev/vda /data")?;
    let (written, again, limited) = fill(&rig, "one", 6 * MIB)?;
    ensure!((written, again, limited) == (0, held, true), "{written}, {again} of {held}");
    // Where quotas are off, nothing is limited, and nothing breaks.
    sh("umount /data && mount -t ext4 -o noquota /dev/vda /data")?;
    let (written, held, limited) = fill(&rig, "two", 2 * MIB)?;
    ensure!(!limited && written > 4 * MIB && held > 4 * MIB, "{written}, {held}, {limited}");
    rig.run(&["poweroff"], SHORT)?;
    Ok(())
}

/// What `wherry-quota` says: what was written, what the node sees, and whether
/// that is limited.
fn fill(rig: &Rig, claim: &str, bytes: u64) -> Result<(u64, u64, bool)> {
    let lib = "/data/lib";
    let loader = format!("{lib}/ld-linux-x86-64.so.2");
    let (program, bytes) = (format!("{lib}/wherry-quota"), bytes.to_string());
    let words = [&*loader, "--library-path", lib, &program, "/data/volumes", claim, &bytes];
    let said = rig.check(&words, SHORT)?;
    let mut words = said.split([' ', ',', '\n']).filter(|word| !word.is_empty());
    let mut next = || words.by_ref().nth(1).with_context(|| said.clone());
    Ok((next()?.parse()?, next()?.parse()?, next()? == "true"))
}

/// The program, stripped, and the shared libraries that it needs.
fn program(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let program = binary("wherry-quota")?;
    run(Command::new("strip").arg("-o").arg(folder.join("wherry-quota")).arg(&program))?;
    let needed = run(Command::new("ldd").arg(&program))?;
    let paths = needed.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths {
        let name = Path::new(path).file_name().context("a library's name")?;
        fs::copy(path, folder.join(name))?;
    }
    Ok(())
}

fn make_disk(path: &Path, files: &Path) -> Result<()> {
    fs::File::create(path)?.set_len(DISK_MIB << 20)?;
    let mut command = Command::new("mke2fs");
    // Where people's PATH has no place for it.
    let paths = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{paths}:/usr/sbin:/sbin"));
    command.args(["-q", "-F", "-t", "ext4", "-O", "quota,project", "-E", "quotatype=prjquota"]);
    run(command.arg("-d").arg(files).arg(path)).map(drop)
}
