//! `wherry-power [ARCH...] [short]`: power cuts on machines under QEMU, more
//! than twenty by killing QEMU in the middle of upgrades, and hundreds on a disk
//! with a volatile cache; `short`: with few machines killed. Writes its part of `target/reports/power.json`.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Result, bail};
use wherry_rig::Arch;
use wherry_tests::host::Host;
use wherry_tests::interrupt;
use wherry_tests::power::crash::keep;
use wherry_tests::power::cuts::cuts;
use wherry_tests::power::report::{Kind, Run};
use wherry_tests::power::{guest, seed};

/// What is done on an architecture: cuts inside of upgrades on one machine
/// after the other, states, states of the control.
type Plan = (Arch, usize, usize, usize);
/// Two do one architecture's cuts: each waits most of its time.
const PLANS: [Plan; 3] =
    [(Arch::Aarch64, 10, 200, 40), (Arch::Aarch64, 10, 0, 0), (Arch::Armv7, 6, 100, 20)];
/// With `short`: states are soon checked, machines take long to be killed.
const SHORT: [Plan; 2] = [(Arch::Aarch64, 4, 200, 40), (Arch::Armv7, 1, 100, 20)];
/// The control's cache holds so many writes.
const CACHED_WRITES: usize = 64;
/// What is made for machines that run at the same time carries these.
const IDS: [&str; 3] = ["power0", "power1", "power2"];

fn main() -> ExitCode {
    interrupt::sweeps(&IDS);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (short, words): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|word| word == "short");
    let wanted: Result<Vec<Arch>, _> = words.iter().map(|word| Arch::from_str(word)).collect();
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("usage: wherry-power [aarch64] [armv7] [short]\n{error}");
            return ExitCode::from(2);
        }
    };
    let plans = if short.is_empty() { &PLANS[..] } else { &SHORT };
    let is_wanted = |arch| wanted.is_empty() || wanted.contains(&arch);
    // An emulated machine has one processor, which takes one of this machine's.
    let ok = std::thread::scope(|scope| {
        let plans = plans.iter().copied().zip(IDS).filter(|((arch, ..), _)| is_wanted(*arch));
        let runs: Vec<_> = plans.map(|(plan, id)| scope.spawn(move || run(id, plan))).collect();
        let ended: Vec<bool> = runs.into_iter().map(|run| run.join().unwrap_or(false)).collect();
        ended.into_iter().all(|ok| ok)
    });
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(id: &str, (arch, cuts, states, control): Plan) -> bool {
    let states = if states > 0 { volatile(id, arch, states, control) } else { Ok(()) };
    let done = states.and_then(|()| killed(id, arch, cuts));
    if let Err(error) = &done {
        println!("{arch}: FAILED: {error:#}");
    }
    done.is_ok()
}

fn killed(id: &str, arch: Arch, count: usize) -> Result<()> {
    let start = Instant::now();
    let title = format!("{arch}, {id}: killed");
    let seed = seed(&title, None);
    let host = Host::new(id)?;
    let outcome = cuts(&host, arch, count, seed)?;
    println!(
        "{arch}: {} cuts, {} of them in an upgrade, {} offline; after {} the new generation, after {} the last good \
         one first; {} failures",
        outcome.count,
        outcome.inside,
        outcome.offline,
        outcome.new,
        outcome.stood_in,
        outcome.failures.len()
    );
    Run {
        name: title,
        architecture: arch.to_string(),
        seed,
        kind: Kind::Cuts,
        count: outcome.count,
        failures: outcome.failures.len(),
        millis: u64::try_from(start.elapsed().as_millis())?,
    }
    .record()?;
    if outcome.failures.is_empty() { Ok(()) } else { bail!("{}", outcome.failures.join("\n")) }
}

fn volatile(id: &str, arch: Arch, states: usize, control: usize) -> Result<()> {
    let seed = seed(&format!("{arch}: volatile cache"), None);
    let host = Host::new(id)?;
    let mut plan = guest::plan(&host, arch, states, seed)?;
    let honoured = plan.carry_out(host.folder())?;
    honoured.record(&format!("{arch}: volatile cache"), &arch.to_string(), seed, Kind::States)?;
    if honoured.failures > 0 {
        bail!("{:#?}\nkept in {}", honoured.told, keep(plan)?.display());
    }
    plan.states = control;
    plan.ignore_flushes = Some(CACHED_WRITES);
    let ignored = plan.carry_out(host.folder())?;
    ignored.record(&format!("{arch}: flushes ignored"), &arch.to_string(), seed, Kind::Control)?;
    if ignored.failures == 0 {
        bail!("a disk that ignores flushes was not found out");
    }
    Ok(())
}
