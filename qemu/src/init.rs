//! The `[init]` section of `wherry.toml` that describes a rig's machine to
//! `wherry init`: what a gateway's image would say about its own hardware.

use crate::machine::Machine;

/// How long the machine may be without care before its watchdog ends it, in
/// seconds: an emulated machine is slow.
const WATCHDOG_SECONDS: u32 = 10;

/// The section, to be put behind the rest of the configuration. `modules` are
/// paths from the root, in load order.
pub(crate) fn section(machine: &Machine, modules: &[String]) -> String {
    let modules: Vec<_> = modules.iter().map(|path| format!("    \"/{path}\",\n")).collect();
    let mut text = format!("\n[init]\nmodules = [\n{}]\n", modules.concat());
    if machine.disk.is_some() {
        // Debug prints words as TOML writes strings.
        text.push_str(&format!(
            "data = {{ device = \"/dev/vda\", fs = \"ext4\", mount = \"/data\", wait_seconds = 30, \
             fsck = {:?} }}\n",
            machine.data_check
        ));
    }
    if machine.watchdog {
        text.push_str(&format!(
            "watchdog = {{ device = \"/dev/watchdog\", timeout_seconds = {WATCHDOG_SECONDS} }}\n"
        ));
    }
    text.push_str("\n[[init.interfaces]]\nname = \"eth0\"\n");
    text.push_str(if machine.dhcp {
        "dhcp = [\"/sbin/udhcpc\", \"-f\", \"-i\", \"eth0\", \"-s\", \"/bin/rig-lease\"]\n"
    } else {
        "address = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\n"
    });
    text.push_str("\n[[init.services]]\ncommand = [\"/bin/rig-shell\"]\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arch;

    #[test]
    fn a_section_says_what_the_machine_has() {
        let mut machine = Machine::new(Arch::Armv7);
        let modules = ["lib/modules/6.1/a.ko".to_owned()];
        let bare = section(&machine, &modules);
        assert!(bare.starts_with("\n[init]\nmodules = [\n    \"/lib/modules/6.1/a.ko\",\n]\n\n[["));
        machine.disk = Some("/tmp/disk".into());
        machine.watchdog = true;
        let full = section(&machine, &modules);
        assert!(full.contains("\n]\ndata = { device = \"/dev/vda\", "), "{full}");
        assert!(
            full.contains("\nwatchdog = { device = \"/dev/watchdog\", timeout_seconds = 10 }\n")
        );
    }
}
