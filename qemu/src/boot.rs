//! From a machine's description to a rig whose shell answers: packages,
//! initramfs, sockets, QEMU.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::initramfs::{self, Content};
use crate::machine::{CONFIGURATION, File, Init, Machine};
use crate::modules::Catalogue;
use crate::packages::tree_of;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::rig::{Error, Folder, Parts, Rig};
use crate::shell::Shell;
use crate::transcript::Transcript;
use crate::tree::Tree;
use crate::{init, qemu};

/// Of the folder of each rig, so that what a killed test leaves is known.
const FOLDER_PREFIX: &str = "wherry-test-rig-";
/// How long QEMU may take to open its sockets; loading it from a cold disk is
/// most of it.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// What [`Machine::boot`] does.
pub(crate) fn boot(machine: &Machine) -> Result<Rig, Error> {
    check(machine)?;
    let tree = tree_of(machine.arch, &packages(machine), false)?;
    let (kernel, initramfs) = prepare(machine, &tree)?;
    let folder = make_folder(machine.keep)?;
    let at = |name: &str| folder.path().join(name);
    let files = qemu::Files {
        kernel,
        initramfs: at("initramfs"),
        console: at("console"),
        complaints: at("qemu"),
        shell: at("shell"),
        terminal: at("terminal"),
        qmp: at("qmp"),
    };
    let io = |path: &Path| io_error(path.to_owned());
    fs::write(&files.initramfs, initramfs).map_err(io(&files.initramfs))?;
    if let Some(log) = &machine.log_writes {
        fs::File::create(log).map_err(io(log))?;
    }
    let listeners = [&files.shell, &files.terminal, &files.qmp].map(|path| listen(path));
    let [shell, terminal, qmp] = listeners;
    let (shell, terminal, qmp) = (shell?, terminal?, qmp?);
    let complaints = fs::File::create(&files.complaints).map_err(io(&files.complaints))?;
    let mut command = qemu::command(machine, &files);
    command.stderr(complaints);
    let parts = Parts {
        folder,
        files,
        transcript: Mutex::new(Transcript::default()),
        started: Instant::now(),
        time_limit: machine.time_limit,
        cut: AtomicBool::new(false),
    };
    let process = Process::start(command, machine.time_limit)
        .map_err(|source| Error::Io { path: machine.arch.qemu().into(), source })?;
    let accept = |listener: &UnixListener| accept(listener, &process, &parts);
    let (shell, terminal, qmp) = (accept(&shell)?, accept(&terminal)?, accept(&qmp)?);
    let qmp = Qmp::new(qmp)?;
    // Its kernel has not begun: nothing was sent before.
    if !machine.cable {
        qmp.set_link(qemu::NETWORK, false)?;
    }
    let mut shell = Shell::new(shell).map_err(io_error(parts.files.shell.clone()))?;
    shell
        .wait_ready(machine.boot_limit)
        .map_err(|error| parts.lost(&process, &error, "booting"))?;
    let (shell, terminal) = (Mutex::new(shell), Mutex::new(terminal));
    Ok(Rig { process, parts, qmp, shell, terminal })
}

/// What can be said before anything is fetched.
fn check(machine: &Machine) -> Result<(), Error> {
    let program = machine.arch.qemu();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()) {
        let package = machine.arch.qemu_package();
        return Err(Error::NoEmulator { program: program.to_owned(), package });
    }
    if let Some(disk) = machine.disk.as_ref().filter(|disk| !disk.is_file()) {
        return Err(Error::Description(format!("there is no disk {}", disk.display())));
    }
    if machine.log_writes.is_some() && machine.disk.is_none() {
        return Err(Error::Description("writes are logged, but it has no disk".to_owned()));
    }
    let has = |path: &str| machine.files.iter().any(|file| file.path == path);
    if matches!(machine.init, Init::Disk(_)) && machine.disk.is_none() {
        return Err(Error::Description("its system is on a disk, but it has none".to_owned()));
    }
    if machine.init == Init::Wherry {
        for path in [crate::machine::BINARY, CONFIGURATION] {
            if !has(path) {
                return Err(Error::Description(format!("its first program needs {path}")));
            }
        }
    }
    Ok(())
}

fn packages(machine: &Machine) -> [&'static str; 2] {
    [machine.arch.kernel_package(machine.kernel), "busybox-static"]
}

/// The kernel's path, verified, and the bytes of the first root.
fn prepare(machine: &Machine, tree: &Tree) -> Result<(PathBuf, Vec<u8>), Error> {
    let is_kernel = |path: &&str| path.starts_with("boot/vmlinuz-");
    let kernel = tree.files().find(is_kernel).map(str::to_owned);
    let kernel =
        kernel.ok_or_else(|| Error::Description("its kernel package has no kernel".to_owned()))?;
    tree.read(&kernel)?;
    let version = kernel.trim_start_matches("boot/vmlinuz-");
    let built_in = tree.read(&format!("lib/modules/{version}/modules.builtin"))?;
    let catalogue = Catalogue::new(tree.files(), &String::from_utf8_lossy(&built_in));
    let mut wanted = machine.modules.clone();
    if machine.watchdog {
        let module = if qemu::has_pci_watchdog(machine) { "i6300esb" } else { "softdog" };
        wanted.push(module.to_owned());
    }
    let paths = catalogue.order(&wanted, |path| tree.read(path))?;
    let mut files = machine.files.clone();
    match machine.init {
        Init::Busybox | Init::Disk(_) => {}
        Init::Wherry => add_section(machine, &paths, &mut files),
    }
    let modules = paths
        .into_iter()
        .map(|path| tree.read(&path).map(|content| (path, content)))
        .collect::<Result<Vec<_>, _>>()?;
    let busybox = tree.read("bin/busybox")?;
    let content =
        Content { busybox: &busybox, modules: &modules, files: &files, init: machine.init };
    let initramfs = initramfs::build(&content).map_err(io_error("initramfs".into()))?;
    Ok((tree.root().join(kernel), initramfs))
}

fn add_section(machine: &Machine, modules: &[String], files: &mut [File]) {
    let section = init::section(machine, modules);
    for file in files.iter_mut().filter(|file| file.path == CONFIGURATION) {
        file.content.extend_from_slice(section.as_bytes());
    }
}

fn make_folder(keep: bool) -> Result<Folder, Error> {
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir();
    let folder = folder.map_err(io_error(std::env::temp_dir()))?;
    Ok(if keep { Folder::Kept(folder.keep()) } else { Folder::Removed(folder) })
}

fn listen(path: &Path) -> Result<UnixListener, Error> {
    let listener = UnixListener::bind(path).map_err(io_error(path.to_owned()))?;
    listener.set_nonblocking(true).map_err(io_error(path.to_owned()))?;
    Ok(listener)
}

/// Waits for QEMU to come.
fn accept(listener: &UnixListener, process: &Process, parts: &Parts) -> Result<UnixStream, Error> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(io_error(parts.files.qmp.clone()))?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(Error::Io { path: parts.files.qmp.clone(), source: error });
            }
            Err(_) => {}
        }
        if process.wait(Duration::from_millis(5)).is_some() {
            return Err(parts.lost(process, &crate::shell::Error::Ended, "starting QEMU"));
        }
        if Instant::now() > deadline {
            return Err(parts.failed("QEMU opens no connection".to_owned()));
        }
    }
}

fn io_error(path: PathBuf) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path, source }
}
