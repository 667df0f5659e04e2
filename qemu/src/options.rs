//! What is said on the command line of `qemu/rig`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser, ValueExt};
use wherry_rig::{Arch, Forward, Init, Kernel};

pub const USAGE: &str = "\
usage: qemu/rig [OPTIONS] [--] [COMMAND [WORD...]]

Boots a machine with one of Debian's kernels and the static `wherry` in it,
runs COMMAND there (`wherry check`), passes its output and exit status on, and
ends the machine.

  --arch ARCH            aarch64 (the default), armv7 or x86_64
  --memory MIB           main memory (128; x86_64: 192)
  --shell                a shell in the machine instead of a command
  --cut-power-after S    starts the command and takes the power away after so
                         many seconds; the disk is as the cut left it
  --keep                 keeps console, transcript, initramfs and disk, and
                         says where
  --disk FILE            the data disk, at /data; made if it is not there.
                         Without it: a new one, which goes with the machine
  --init PROGRAM         its first program: busybox (the default) or wherry
  --config FILE          /etc/wherry/wherry.toml; a sample without it
  --binary FILE          /sbin/wherry; target/static/ARCH/wherry without it
  --forward HOST:GUEST   a port of 127.0.0.1 here that leads to one there;
                         may be given again. From there, 10.0.2.2 is here
  --kernel KIND          small (the default) or full: PCI watchdog, F2FS
  --append WORDS         more words of the kernel's command line
  --watchdog             a /dev/watchdog; unfed, it ends the machine
  --time-limit S         then the machine is killed (300; a shell: 3600)

Kernels come from Debian's archive by the machine's own apt, are verified, and
kept in ~/.cache/wherry/rigs (WHERRY_CACHE names another place).

examples:
  qemu/rig --arch armv7 --memory 64
  qemu/rig --shell --forward 8080:8080
  qemu/rig --disk d.img --cut-power-after 2 -- dd if=/dev/zero of=/data/x
";

const SECONDS: Duration = Duration::from_secs(300);
const SHELL_SECONDS: Duration = Duration::from_secs(3600);

/// What a person asked for.
#[derive(Debug, PartialEq)]
pub struct Options {
    pub arch: Arch,
    pub memory_mib: Option<u32>,
    pub kernel: Kernel,
    pub init: Init,
    pub append: Vec<String>,
    pub watchdog: bool,
    pub forwards: Vec<Forward>,
    pub disk: Option<PathBuf>,
    pub config: Option<PathBuf>,
    pub binary: Option<PathBuf>,
    pub shell: bool,
    pub keep: bool,
    pub cut_power_after: Option<Duration>,
    pub time_limit: Duration,
    pub command: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub enum Parsed {
    Run(Box<Options>),
    Help,
}

/// # Errors
/// What cannot be understood, with the option's name.
pub fn parse(mut parser: Parser) -> Result<Parsed> {
    let mut options = Options {
        arch: Arch::Aarch64,
        memory_mib: None,
        kernel: Kernel::Small,
        init: Init::Busybox,
        append: Vec::new(),
        watchdog: false,
        forwards: Vec::new(),
        disk: None,
        config: None,
        binary: None,
        shell: false,
        keep: false,
        cut_power_after: None,
        time_limit: Duration::ZERO,
        command: Vec::new(),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Parsed::Help),
            Arg::Long("shell") => options.shell = true,
            Arg::Long("keep") => options.keep = true,
            Arg::Long("watchdog") => options.watchdog = true,
            Arg::Long(name) => {
                let name = name.to_owned();
                let value = parser.value()?.string()?;
                option(&mut options, &name, &value).with_context(|| format!("--{name} {value}"))?;
            }
            Arg::Value(word) => {
                options.command.push(word.string()?);
                for word in parser.raw_args()? {
                    options.command.push(word.string()?);
                }
            }
            Arg::Short(_) => return Err(argument.unexpected().into()),
        }
    }
    complete(options).map(|options| Parsed::Run(Box::new(options)))
}

fn option(options: &mut Options, name: &str, value: &str) -> Result<()> {
    let seconds = || Ok::<_, anyhow::Error>(Duration::try_from_secs_f64(value.parse()?)?);
    match name {
        "arch" => options.arch = value.parse()?,
        "memory" => options.memory_mib = Some(value.parse()?),
        "append" => options.append.extend(value.split_whitespace().map(str::to_owned)),
        "disk" => options.disk = Some(value.into()),
        "config" => options.config = Some(value.into()),
        "binary" => options.binary = Some(value.into()),
        "cut-power-after" => options.cut_power_after = Some(seconds()?),
        "time-limit" => options.time_limit = seconds()?,
        "init" => {
            options.init = match value {
                "busybox" => Init::Busybox,
                "wherry" => Init::Wherry,
                _ => bail!("busybox or wherry"),
            };
        }
        "kernel" => {
            options.kernel = match value {
                "small" => Kernel::Small,
                "full" => Kernel::Full,
                _ => bail!("small or full"),
            };
        }
        "forward" => {
            let (host, guest) = value.split_once(':').context("two ports, HOST:GUEST")?;
            options.forwards.push(Forward { host: host.parse()?, guest: guest.parse()? });
        }
        _ => bail!("no such option"),
    }
    Ok(())
}

fn complete(mut options: Options) -> Result<Options> {
    if options.shell && (options.cut_power_after.is_some() || !options.command.is_empty()) {
        bail!("--shell takes neither a command nor --cut-power-after");
    }
    if options.command.is_empty() {
        options.command = ["/sbin/wherry", "check"].map(str::to_owned).to_vec();
    }
    if options.time_limit.is_zero() {
        options.time_limit = if options.shell { SHELL_SECONDS } else { SECONDS };
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &str) -> Result<Options> {
        match parse(Parser::from_args(words.split_whitespace()))? {
            Parsed::Run(options) => Ok(*options),
            Parsed::Help => bail!("help"),
        }
    }

    #[test]
    fn what_is_said_is_what_is_booted() {
        let plain = options("").unwrap();
        assert_eq!((plain.arch, plain.memory_mib), (Arch::Aarch64, None));
        assert_eq!(plain.command, ["/sbin/wherry", "check"]);
        assert_eq!(plain.time_limit, SECONDS);
        let full = options(
            "--arch armv7 --memory=64 --init wherry --forward 80:8080 --disk /d \
             --cut-power-after 0.5 --keep -- dd --help",
        );
        let full = full.unwrap();
        assert_eq!((full.arch, full.memory_mib, full.init), (Arch::Armv7, Some(64), Init::Wherry));
        assert_eq!(full.forwards, [Forward { host: 80, guest: 8080 }]);
        assert_eq!(full.cut_power_after, Some(Duration::from_millis(500)));
        assert_eq!(full.command, ["dd", "--help"]);
        assert_eq!(options("uname --keep").unwrap().command, ["uname", "--keep"]);
        assert_eq!(options("--shell").unwrap().time_limit, SHELL_SECONDS);
    }

    #[test]
    fn mistakes_are_named() {
        for (words, said) in [
            ("--arch mips", "--arch mips: no architecture \"mips\": use aarch64, armv7 or x86_64"),
            ("--memory lots", "--memory lots: invalid digit found in string"),
            ("--forward 80", "--forward 80: two ports, HOST:GUEST"),
            ("--colour red", "--colour red: no such option"),
            ("--shell ls", "--shell takes neither a command nor --cut-power-after"),
            ("-x", "invalid option '-x'"),
        ] {
            assert_eq!(format!("{:#}", options(words).unwrap_err()), said);
        }
    }
}
