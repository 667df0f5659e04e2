//! Rigs: machines of the gateways' architectures, with Debian's own kernels,
//! under QEMU. For tests and for people; nothing of it runs on a gateway.
//!
//! Start at [`Machine`], which describes one; [`Machine::boot`] makes it a
//! [`Rig`], which runs commands in it, moves files, cuts its power and says
//! what happened. It knows nothing of what Wherry does: tests do.

pub mod arch;
mod boot;
mod cache;
mod cpio;
pub mod disk;
mod init;
mod initramfs;
pub mod machine;
pub mod modules;
pub mod packages;
mod process;
mod qemu;
mod qmp;
pub mod replay;
pub mod rig;
mod shell;
mod sys;
pub mod terminal;
pub mod transcript;
pub mod tree;

pub use arch::{Arch, Kernel};
pub use cache::CACHE_VARIABLE;
pub use initramfs::APPLETS;
pub use machine::{File, Forward, Init, Machine};
pub use packages::packages;
pub use qmp::PowerOff;
pub use rig::{Error, Rig};
pub use shell::Output;
pub use transcript::Trouble;
