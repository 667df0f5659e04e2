//! The launcher as a process of its own, for the tests of this crate: the
//! production path with the test in the supervisor's place.
//!
//! `RUN LAYERS CGROUP BRIDGE SUBNET attached`: the test is at the other end
//! of standard input. `… spawn FILE`: starts this program as supervisor,
//! which appends its pid to FILE and waits to be ended. `… seal-only`: says
//! whether it is sealed. `calls`, `threads`, `time`, `traced` and `i386` are
//! programs for containers.
#![deny(unsafe_code)]

mod calls;
#[allow(unsafe_code)]
mod sys;

use std::error::Error;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use wherry_runtime::check::Allowed;
use wherry_runtime::client::LauncherClient;
use wherry_runtime::launcher::{self, LauncherConfig, NetworkSettings, Supervisor};
use wherry_runtime::seal;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["supervisor", file] = words[..] {
        return supervise(file);
    }
    match words[..] {
        ["calls"] => {
            calls::tell();
            return Ok(());
        }
        ["threads"] => return calls::threads(),
        ["time"] => return calls::time(),
        ["traced"] => return calls::traced(),
        ["i386"] => {
            calls::i386();
            return Ok(());
        }
        _ => {}
    }
    seal::ensure_sealed()?;
    match words[..] {
        ["seal-only"] => {
            println!("sealed: {}", seal::is_sealed()?);
            Ok(())
        }
        [run, layers, cgroup, bridge, subnet, "attached"] => {
            let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
            // Containers must not find it: standard input stays open in all
            // children.
            let null = std::fs::File::open("/dev/null")?;
            nix::unistd::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), 0)?;
            serve(run, layers, cgroup, bridge, subnet, Supervisor::Attached(socket))
        }
        [run, layers, cgroup, bridge, subnet, "spawn", file] => {
            let args = vec![CString::new("supervisor")?, CString::new(file)?];
            serve(run, layers, cgroup, bridge, subnet, Supervisor::Spawn { args })
        }
        _ => Err(format!("unknown arguments {words:?}").into()),
    }
}

fn serve(
    run: &str,
    layers: &str,
    cgroup: &str,
    bridge: &str,
    subnet: &str,
    supervisor: Supervisor,
) -> Result<(), Box<dyn Error>> {
    let config = LauncherConfig {
        run_dir: PathBuf::from(run),
        layers_dir: PathBuf::from(layers),
        claims_dir: PathBuf::from(run).join("claims"),
        cgroup_prefix: cgroup.into(),
        network: NetworkSettings {
            bridge: bridge.into(),
            subnet_base: subnet.parse()?,
            subnet_prefix: 24,
            dns: vec!["10.9.8.7".parse()?],
        },
        allowed: Allowed {
            host_paths: vec![PathBuf::from(run).with_file_name("shared")],
            devices: vec!["/dev/loop-control".into(), "/dev/wherry-test".into()],
            seccomp_unconfined: true,
        },
        supervisor,
    };
    println!("ended: {:?}", launcher::run(config)?);
    Ok(())
}

fn supervise(file: &str) -> Result<(), Box<dyn Error>> {
    let client = LauncherClient::from_inherited()?;
    let mut reader = client.reader()?;
    let mut pids = OpenOptions::new().append(true).create(true).open(file)?;
    writeln!(pids, "{}", std::process::id())?;
    while reader.recv()?.is_some() {}
    Ok(())
}
