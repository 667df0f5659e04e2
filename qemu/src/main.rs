//! `qemu/rig`: a machine for a person. Boots one, runs a command in it or
//! gives a shell, and takes its power away if asked to. Everything it can do,
//! tests can do too: see the library.

mod options;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use wherry_rig::machine::{BINARY, CONFIGURATION};
use wherry_rig::{File, Init, Machine, Rig, disk, terminal};

use options::{Options, Parsed, USAGE};

/// Of a disk that nobody brought: room for some images.
const DISK_MIB: u64 = 256;
/// Of a node without a cloud: enough for `wherry check` and `wherry init`.
const SAMPLE: &str = include_str!("guest/wherry.toml");
/// How long the machine may take to end in order.
const END_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let options = match options::parse(lexopt::Parser::from_env()) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("rig: {error:#}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<u8> {
    let folder = tempfile::Builder::new().prefix("wherry-test-rig-disk-").tempdir()?;
    let machine = machine(options, &folder)?;
    let running = ends_with_us()?;
    let rig = Arc::new(machine.boot()?);
    *running.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&rig));
    eprintln!("rig: {} with {} MiB is up", options.arch, machine.memory_mib);
    let outcome = life(options, machine, &rig);
    // The last one to let go of it takes its folder away, or completes it.
    running.write().unwrap_or_else(PoisonError::into_inner).take();
    outcome
}

/// From the first command to the end of the machine.
fn life(options: &Options, machine: Machine, rig: &Rig) -> Result<u8> {
    let outcome = match options.cut_power_after {
        Some(after) => cut_power(rig, &options.command, after),
        None if options.shell => shell(rig),
        None => command(rig, &options.command, options.time_limit),
    };
    if rig.is_running() && outcome.is_ok() {
        power_off(rig, machine.init)?;
    }
    if let Some(trouble) = rig.trouble() {
        bail!("{trouble}\n{}", rig.transcript());
    }
    if options.keep {
        eprintln!("rig: kept {}", rig.folder().display());
        if let Some(disk) = machine.disk.filter(|_| options.disk.is_none()) {
            let kept = rig.folder().join("disk");
            fs::copy(&disk, &kept).with_context(|| kept.display().to_string())?;
        }
    }
    outcome
}

/// Whoever interrupts this wants the machine gone, and its folder too.
fn ends_with_us() -> Result<Arc<RwLock<Option<Arc<Rig>>>>> {
    let running: Arc<RwLock<Option<Arc<Rig>>>> = Arc::default();
    let seen = Arc::clone(&running);
    ctrlc::set_handler(move || match &*seen.read().unwrap_or_else(PoisonError::into_inner) {
        Some(rig) => drop(rig.cut_power()),
        None => std::process::exit(130),
    })?;
    Ok(running)
}

fn machine(options: &Options, folder: &TempDir) -> Result<Machine> {
    let mut machine = Machine::new(options.arch);
    if let Some(memory_mib) = options.memory_mib {
        machine.memory_mib = memory_mib;
    }
    machine.kernel = options.kernel;
    machine.init = options.init;
    machine.append.clone_from(&options.append);
    machine.watchdog = options.watchdog;
    machine.forwards.clone_from(&options.forwards);
    machine.keep = options.keep;
    machine.time_limit = options.time_limit;
    let disk = options.disk.clone().unwrap_or_else(|| folder.path().join("disk"));
    if !disk.exists() {
        disk::make(&disk, DISK_MIB, None)?;
    }
    machine.disk = Some(disk);
    let wherry = static_binary(options)?;
    let config = match &options.config {
        Some(path) => fs::read(path).with_context(|| path.display().to_string())?,
        None => SAMPLE.as_bytes().to_vec(),
    };
    machine.files = vec![File::new(BINARY, 0o755, wherry), File::new(CONFIGURATION, 0o600, config)];
    Ok(machine)
}

fn static_binary(options: &Options) -> Result<Vec<u8>> {
    let path = options.binary.clone().unwrap_or_else(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from);
        root.unwrap_or_default().join(format!("target/static/{}/wherry", options.arch))
    });
    fs::read(&path).with_context(|| {
        format!("cannot read {}: run `make static`, or name one with --binary", path.display())
    })
}

fn shell(rig: &Rig) -> Result<u8> {
    let line = rig.terminal()?;
    let (rows, columns) = terminal::size();
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    let words = ["/bin/rig-terminal", &term, &rows.to_string(), &columns.to_string()];
    rig.start(&words, "/dev/null")?;
    terminal::join(&line)?;
    Ok(0)
}

/// Its output becomes ours, and its exit status.
fn command(rig: &Rig, words: &[String], limit: Duration) -> Result<u8> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = rig.run(&words, limit)?;
    print!("{}", output.text());
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(u8::try_from(output.status).unwrap_or(u8::MAX))
}

/// The command runs on until there is no power left.
fn cut_power(rig: &Rig, words: &[String], after: Duration) -> Result<u8> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    rig.start(&words, "/dev/console")?;
    std::thread::sleep(after);
    rig.cut_power()?;
    eprintln!("rig: the power was cut\n{}", rig.transcript());
    Ok(0)
}

fn power_off(rig: &Rig, init: Init) -> Result<()> {
    match init {
        Init::Wherry => rig.start(&[BINARY, "poweroff"], "/dev/console")?,
        Init::Busybox | Init::Disk(_) => rig.start(&["poweroff"], "/dev/console")?,
    };
    rig.wait_power_off(END_LIMIT)?;
    Ok(())
}
