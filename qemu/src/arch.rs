//! The architectures that rigs have, and what each is called by Debian, by
//! QEMU and by the static builds. No I/O.

use std::fmt;
use std::str::FromStr;

/// A gateway's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM with hard float.
    Armv7,
    /// What most developers' machines are.
    X86_64,
}

/// Which of Debian's kernels a machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// The one that takes least memory.
    Small,
    /// The one with drivers for hardware: PCI watchdog, 9P, F2FS.
    Full,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; 3] = [Self::Aarch64, Self::Armv7, Self::X86_64];

    /// As in `target/static/ARCH`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::Armv7 => "armv7",
            Self::X86_64 => "x86_64",
        }
    }

    /// Debian's name.
    #[must_use]
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::Armv7 => "armhf",
            Self::X86_64 => "amd64",
        }
    }

    /// Debian's metapackage that leads to the kernel.
    #[must_use]
    pub const fn kernel_package(self, kernel: Kernel) -> &'static str {
        match (self, kernel) {
            (Self::Aarch64, Kernel::Small) => "linux-image-cloud-arm64",
            (Self::Aarch64, Kernel::Full) => "linux-image-arm64",
            (Self::Armv7, Kernel::Small | Kernel::Full) => "linux-image-armmp",
            (Self::X86_64, Kernel::Small) => "linux-image-cloud-amd64",
            (Self::X86_64, Kernel::Full) => "linux-image-amd64",
        }
    }

    /// The program that emulates it.
    #[must_use]
    pub const fn qemu(self) -> &'static str {
        match self {
            Self::Aarch64 => "qemu-system-aarch64",
            Self::Armv7 => "qemu-system-arm",
            Self::X86_64 => "qemu-system-x86_64",
        }
    }

    /// The Debian package that holds [`Self::qemu`].
    #[must_use]
    pub const fn qemu_package(self) -> &'static str {
        match self {
            Self::Aarch64 | Self::Armv7 => "qemu-system-arm",
            Self::X86_64 => "qemu-system-x86",
        }
    }

    /// QEMU's board and processor. The 32-bit board keeps its PCI bus where 32
    /// bits reach it; on the small `microvm`, whose clocks no kernel can
    /// calibrate, one boot in ten hangs.
    pub(crate) const fn board(self) -> [&'static str; 4] {
        match self {
            Self::Aarch64 => ["-machine", "virt", "-cpu", "cortex-a53"],
            Self::Armv7 => ["-machine", "virt,highmem=off", "-cpu", "cortex-a7"],
            Self::X86_64 => ["-machine", "q35", "-cpu", "max"],
        }
    }

    /// The serial port that is the kernel's console.
    pub(crate) const fn console(self) -> &'static str {
        match self {
            Self::Aarch64 | Self::Armv7 => "ttyAMA0",
            Self::X86_64 => "ttyS0",
        }
    }

    /// Memory below which the kernel does not come up, in MiB; for people's
    /// default, not a bound.
    #[must_use]
    pub const fn memory_mib_default(self) -> u32 {
        match self {
            Self::Aarch64 | Self::Armv7 => 128,
            Self::X86_64 => 192,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No architecture has this name.
#[derive(Debug, thiserror::Error)]
#[error("no architecture {0:?}: use aarch64, armv7 or x86_64")]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        let found = Self::ALL.into_iter().find(|arch| arch.name() == name || arch.debian() == name);
        found.ok_or_else(|| UnknownArch(name.to_owned()))
    }
}
