//! QEMU's command line for a machine. Starts nothing.
//!
//! Source: qemu-system(1).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::arch::{Arch, Kernel};
use crate::machine::{Init, Machine};

/// The network card's name in QMP.
pub(crate) const NETWORK: &str = "net0";

/// Where a machine's files are, in the rig's folder.
#[derive(Debug)]
pub(crate) struct Files {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// What the kernel wrote to its console.
    pub console: PathBuf,
    /// What QEMU itself complained about.
    pub complaints: PathBuf,
    /// Sockets that the rig listens at.
    pub shell: PathBuf,
    pub terminal: PathBuf,
    pub qmp: PathBuf,
}

/// The whole command, entering the caller's namespace first.
pub(crate) fn command(machine: &Machine, files: &Files) -> Command {
    let words = words(machine, files);
    let mut all = machine.enter.iter().chain(&words);
    let mut command = Command::new(all.next().map_or(OsStr::new(""), OsString::as_os_str));
    command.args(all).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn words(machine: &Machine, files: &Files) -> Vec<OsString> {
    let arch = machine.arch;
    let mut words: Vec<OsString> = vec![arch.qemu().into()];
    words.extend(arch.board().map(OsString::from));
    let mut add = |text: &str| words.extend(text.split(' ').map(OsString::from));
    // TCG everywhere: what /dev/kvm promises is not always kept.
    add("-accel tcg -display none -nodefaults -no-user-config -no-reboot");
    add(&format!("-m {}M -smp {}", machine.memory_mib, machine.processors));
    // Over plain memory instead of PCI each queue would have 1024 entries, and
    // the kernel keeps up to 4 KiB for each: 12 MiB for the consoles alone.
    add("-device virtio-serial-pci");
    // The guest's scripts know them as /dev/hvc0 and /dev/vport*p1.
    add("-device virtconsole,chardev=terminal,nr=0 -device virtserialport,chardev=shell,nr=1");
    add("-device virtio-net-pci,netdev=net0,mac=52:54:00:77:68:79");
    if machine.watchdog && has_pci_watchdog(machine) {
        add("-device i6300esb");
    }
    if machine.watchdog {
        add("-action watchdog=poweroff");
    }
    let mut pair = |option: &str, value: OsString| words.extend([option.into(), value]);
    pair("-netdev", network(machine).into());
    pair("-kernel", files.kernel.clone().into());
    pair("-initrd", files.initramfs.clone().into());
    pair("-append", kernel_line(machine).into());
    pair("-serial", joined("file:", &files.console));
    // The rig listens, QEMU comes: no word of the guest's is lost before.
    pair("-chardev", joined("socket,id=shell,path=", &files.shell));
    pair("-chardev", joined("socket,id=terminal,path=", &files.terminal));
    pair("-qmp", joined("unix:", &files.qmp));
    for block in blocks(machine) {
        pair("-blockdev", block);
    }
    if machine.disk.is_some() {
        pair("-device", "virtio-blk-pci,drive=disk".into());
    }
    words
}

/// Only there is a driver for it.
pub(crate) fn has_pci_watchdog(machine: &Machine) -> bool {
    machine.arch == Arch::Aarch64 && machine.kernel == Kernel::Full
}

fn network(machine: &Machine) -> String {
    let mut network = format!("user,id={NETWORK}");
    for forward in &machine.forwards {
        let (host, guest) = (forward.host, forward.guest);
        network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
    }
    network
}

/// The disk, node `disk`, through a log of its writes if one is wanted.
fn blocks(machine: &Machine) -> Vec<OsString> {
    let Some(disk) = &machine.disk else { return Vec::new() };
    let Some(log) = &machine.log_writes else {
        return vec![joined("driver=file,node-name=disk,filename=", disk)];
    };
    vec![
        joined("driver=file,node-name=data,filename=", disk),
        joined("driver=file,node-name=log,filename=", log),
        "driver=blklogwrites,node-name=disk,file=data,log=log,log-sector-size=512".into(),
    ]
}

fn kernel_line(machine: &Machine) -> String {
    // A panic ends the machine at once: with -no-reboot, QEMU too.
    // No device of these boards wants contiguous memory; 16 MiB of it would be
    // missing for the kernel's own use in a small machine.
    let mut line = format!("console={} quiet panic=-1 cma=0", machine.arch.console());
    for word in &machine.append {
        line.push(' ');
        line.push_str(word);
    }
    match machine.init {
        Init::Busybox | Init::Disk(_) => {}
        // What follows the dashes is the first program's.
        Init::Wherry => line.push_str(&format!(" rdinit={} -- init", crate::machine::BINARY)),
    }
    line
}

/// A comma ends an option's value for QEMU, two are one that does not.
fn joined(start: &str, path: &Path) -> OsString {
    let mut text = OsString::from(start);
    match path.to_str() {
        Some(path) => text.push(path.replace(',', ",,")),
        None => text.push(path),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Forward;

    fn line(machine: &Machine) -> String {
        let file = |name: &str| PathBuf::from("/r").join(name);
        let files = Files {
            kernel: file("vmlinuz"),
            initramfs: file("initramfs"),
            console: file("console"),
            complaints: file("qemu"),
            shell: file("shell"),
            terminal: file("terminal"),
            qmp: file("qmp"),
        };
        let command = command(machine, &files);
        let mut words = vec![command.get_program().to_owned()];
        words.extend(command.get_args().map(OsStr::to_owned));
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_a_machine_says_is_what_qemu_gets() {
        let mut machine = Machine::new(Arch::Aarch64);
        let plain = line(&machine);
        assert!(plain.starts_with("qemu-system-aarch64 -machine virt -cpu cortex-a53 "), "{plain}");
        for absent in ["-blockdev", "i6300esb", "hostfwd", "rdinit"] {
            assert!(!plain.contains(absent), "{plain}");
        }
        machine.enter = ["nsenter", "--net=/run/netns/a"].map(OsString::from).to_vec();
        machine.kernel = Kernel::Full;
        machine.watchdog = true;
        machine.disk = Some("/d,1".into());
        machine.log_writes = Some("/l".into());
        machine.forwards = vec![Forward { host: 8080, guest: 80 }];
        machine.init = Init::Wherry;
        machine.append = vec!["loglevel=7".to_owned()];
        let full = line(&machine);
        assert!(full.starts_with("nsenter --net=/run/netns/a qemu-system-aarch64 "), "{full}");
        for present in [
            "-device i6300esb -action watchdog=poweroff",
            "filename=/d,,1 ",
            "node-name=disk,file=data,log=log",
            "user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80 ",
            "console=ttyAMA0 quiet panic=-1 cma=0 loglevel=7 rdinit=/sbin/wherry -- init ",
        ] {
            assert!(full.contains(present), "{present}: {full}");
        }
    }
}
