//! Capability numbers (`linux/capability.h`) and their names in OCI specs.

use std::collections::HashSet;

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

/// In the kernel's order, from 0.
const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Bits that name a capability; any other bit is refused.
pub const CAPABILITIES_KNOWN: u64 = (1 << BY_NUMBER.len()) - 1;

/// All five sets the same: ambient and inheritable too, so that a user other
/// than root keeps what was asked for when its program is executed.
///
/// # Errors
/// A bug of the builder's.
pub fn sets(bits: u64) -> Result<LinuxCapabilities, OciSpecError> {
    let set: HashSet<Capability> = BY_NUMBER
        .iter()
        .enumerate()
        .filter(|(number, _)| bits >> number & 1 == 1)
        .map(|(_, &capability)| capability)
        .collect();
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set.clone())
        .inheritable(set.clone())
        .ambient(set)
        .build()
}
