//! `start.json`: how long pods and containers take to start and to go, beside
//! crun and runc.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use wherry_bundle::Name;
use wherry_tests::host::Host;
use wherry_tests::images::Images;
use wherry_tests::launcher::Launcher;
use wherry_tests::peers::{Peer, without_unified};

use crate::spread::Spread;

/// After a while without work the kernel is slower: gateways are idle most of
/// the time, and back-to-back runs would hide it.
const GAP: Duration = Duration::from_millis(100);
const ROUNDS: usize = 40;
const WARM_UP: usize = 3;

/// A container into a pod that exists: Wherry's launcher, crun and runc in
/// turn.
pub fn measure() -> Result<Value> {
    let host = Host::new("bench")?;
    let folder = host.folder().join("images");
    std::fs::create_dir_all(&folder)?;
    let images = Images::new(&folder)?;
    images.build_lion("lion", "1")?;
    let rootfs = folder.join("lion");
    let mut launcher = Launcher::start(&host)?;
    let layer = launcher.add_layer(&rootfs)?;
    let pod = Name::new("bench-0")?;
    launcher.define_stamp(&pod, layer)?;
    let mut stdout = launcher.stdout(&pod)?;
    let netns = host.folder().join("run/pods/bench-0/ns/net");
    let [wherry, crun, runc] = without_unified(|| {
        let mut crun = Peer::new("crun", host.folder(), &rootfs, &netns)?;
        let mut runc = Peer::new("runc", host.folder(), &rootfs, &netns)?;
        let mut times = [vec![], vec![], vec![]];
        for round in 0..ROUNDS + WARM_UP {
            let mut took = [0; 3];
            std::thread::sleep(GAP);
            took[0] = launcher.time_start(&pod, &mut stdout)?;
            std::thread::sleep(GAP);
            took[1] = crun.start()?;
            std::thread::sleep(GAP);
            took[2] = runc.start()?;
            if round >= WARM_UP {
                times.iter_mut().zip(took).for_each(|(list, nanos)| list.push(nanos));
            }
        }
        Ok(times)
    })?;
    let (ours, crun, runc) = (Spread::of(wherry), Spread::of(crun), Spread::of(runc));
    println!(
        "start of a container in a pod, p50: {:.1} ms; crun {:.1} ms, runc {:.1} ms; {:.2} × crun",
        ours.p50,
        crun.p50,
        runc.p50,
        ours.p50 / crun.p50
    );
    Ok(json!({
        "rounds": ROUNDS,
        "gap_ms": GAP.as_millis(),
        "wherry_ms": ours.json(),
        "crun_ms": crun.json(),
        "runc_ms": runc.json(),
        "ratio_to_crun_p50": ours.p50 / crun.p50,
        "ratio_to_runc_p50": ours.p50 / runc.p50,
    }))
}
