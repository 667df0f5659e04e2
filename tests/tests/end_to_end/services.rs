//! The service files of `supervisor/dist`, each under the init system that it
//! is for, and `wherry check` on a host that lacks something.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_tests::cloud::Cloud;
use wherry_tests::host::{Host, Side, binary};
use wherry_tests::images;
use wherry_tests::node::{Node, PATIENCE};
use wherry_tests::package::{Component, Package};
use wherry_tests::run::{both, output, run, tool, wait_for};
use wherry_tests::templates::{EVERYWHERE, env, lion};

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor/dist").join(name)
}

#[test]
fn containers_outlive_a_restart_under_sysvinit() {
    sysvinit().unwrap();
}

fn sysvinit() -> Result<()> {
    let host = Host::new("sysv")?;
    let mut cloud = Cloud::new(&host);
    cloud.start()?;
    images::import(&cloud)?;
    cloud.organise()?;
    let mut node = Node::new(&host, &cloud.cli(&["node", "config", "gw-1"])?)?;
    let folder = host.folder().to_owned();
    let script = |verb: &str| -> Result<String> {
        let mut command = Command::new("sh");
        command.arg(dist("sysvinit/wherry")).arg(verb);
        command.env("WHERRY_BIN", binary("wherry")?).env("WHERRY_CONFIG", config(&folder));
        command.env("WHERRY_PIDFILE", folder.join("pid")).env("WHERRY_DEFAULTS", "/nowhere");
        command.env("WHERRY_LOG_FILE", folder.join("node.log"));
        host.run(Side::Gateway, &mut command)
    };
    let launcher = || pid_in(&folder.join("pid.child"));
    let answers = |node: &Node<'_>| {
        wait_for("the node's answer", PATIENCE, || node.json(&["status"]).map(Some))
    };
    ensure!(script("status").is_err(), "not running, and its status is good");
    script("start")?;
    answers(&node)?;
    let template = lion("well", "", "", &env(&[EVERYWHERE]));
    Package::new("1.0.0", vec![Component::new("well", "lion:1.0.0", template)])
        .roll_out(&cloud, &host)?;
    node.wait_running(1)?;
    let (pods, first) = (node.processes()?, launcher()?);
    ensure!(!pods.is_empty(), "no container runs");
    script("restart")?;
    answers(&node)?;
    let second = launcher()?;
    ensure!(first != second, "the launcher is the same");
    ensure!(node.processes()? == pods, "the restart touched a container");
    script("status")?;
    // A death that nobody asked for.
    kill(second, Signal::SIGKILL)?;
    wait_for("another launcher", PATIENCE, || {
        Ok(launcher().ok().filter(|third| *third != second))
    })?;
    answers(&node)?;
    ensure!(node.processes()? == pods, "the launcher's death touched a container");
    script("stop")?;
    ensure!(script("status").is_err(), "ended, and its status is good");
    ensure!(node.processes()? == pods, "the end touched a container");
    script("start")?;
    answers(&node)?;
    node.purge()?;
    wait_for("the keeper's end", PATIENCE, || Ok(script("status").is_err().then_some(())))?;
    let left = host.leftovers()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn config(folder: &Path) -> PathBuf {
    folder.join("wherry.toml")
}

fn pid_in(path: &Path) -> Result<Pid> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Pid::from_raw(text.trim().parse()?))
}

/// Debian's OpenRC, in a mount namespace where it finds the state that it
/// would have after a boot; `set -e`: the first thing wrong ends it.
const OPENRC: &str = r#"
set -eu
folder=$1 bin=$2 script=$3
mount -t tmpfs wherry-test /run
mkdir -p /run/up /run/work /run/lock
for state in daemons exclusive failed hotplugged inactive options scheduled started starting \
    stopping tmp wasinactive; do mkdir -p "/run/openrc/$state"; done
echo default >/run/openrc/softlevel
mount -t overlay -o lowerdir=/etc,upperdir=/run/up,workdir=/run/work wherry-test /etc
mkdir -p /etc/conf.d
printf 'WHERRY_BIN=%s\nWHERRY_CONFIG=%s\n' "$bin" "$folder/wherry.toml" >/etc/conf.d/wherry
openrc=$(command -v openrc-run)
rm -f /etc/init.d/*
sed "1s|.*|#!$openrc|" "$script" >/etc/init.d/wherry
printf '#!%s\nstart() { :; }\n' "$openrc" >/etc/init.d/localmount
chmod +x /etc/init.d/wherry /etc/init.d/localmount
service() { timeout 90 openrc-run /etc/init.d/wherry "$1"; }
trap 'service stop >/dev/null 2>&1 || true' EXIT
launcher() { "$bin" status --config "$folder/wherry.toml" >/dev/null 2>&1 && cat /run/wherry.pid; }
answers() {
    tries=0
    until launcher >/dev/null; do
        tries=$((tries + 1)); [ "$tries" -lt 100 ]; sleep 0.2
    done
}
service start; answers; service status
first=$(cat /run/wherry.pid)
service restart; answers; service status
[ "$(cat /run/wherry.pid)" != "$first" ]
service stop
if service status; then exit 1; fi
if launcher; then exit 1; fi
echo all is well
"#;

#[test]
fn openrc_starts_restarts_and_stops_it() {
    let host = Host::new("openrc").unwrap();
    let sample = fs::read_to_string(dist("wherry.toml")).unwrap();
    Node::new(&host, &sample.replace("[network]", "").replace("[logs]", "")).unwrap();
    let mut command = tool("unshare", ["--mount", "sh", "-c", OPENRC, "sh"]);
    command.arg(host.folder()).arg(binary("wherry").unwrap()).arg(dist("openrc/wherry"));
    let text = host.run(Side::Gateway, &mut command).unwrap();
    assert!(text.contains("all is well"), "{text}");
}

#[test]
fn systemd_takes_the_unit_and_finds_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(dist("systemd/wherry.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/sbin/wherry run"));
    let verify = |text: &str| -> Output {
        let path = folder.path().join("wherry-test.service");
        fs::write(&path, text).unwrap();
        output(tool("systemd-analyze", ["verify", "--man=no"]).arg(path)).unwrap()
    };
    let bin = binary("wherry").unwrap();
    let unit = unit.replace("/usr/sbin/wherry", &bin.display().to_string());
    let verified = verify(&unit);
    assert!(verified.status.success(), "{}", both(&verified));
    assert!(!both(&verified).contains("wherry-test.service"), "{}", both(&verified));
    // It does look.
    let wrong = both(&verify(&unit.replace("KillMode=process", "KillMode=wrong")));
    assert!(wrong.contains("wherry-test.service"), "{wrong}");
}

#[test]
fn scripts_are_plain_posix_sh_and_the_sample_is_understood() {
    for script in ["sysvinit/wherry", "openrc/wherry"] {
        run(tool("sh", ["-n"]).arg(dist(script))).unwrap();
        run(tool("shellcheck", ["-s", "sh"]).arg(dist(script))).unwrap();
    }
    let report = check(&["--config", dist("wherry.toml").to_str().unwrap()]).0;
    assert_eq!(state(&report, "configuration"), "ok", "{report}");
}

#[test]
fn a_host_that_lacks_nothing_can_run() {
    let (report, succeeded) = check(&[]);
    assert!(succeeded, "{report}");
    assert_eq!(report["can_run"], true);
    for name in ["overlay", "squashfs-zstd", "nftables-balancing", "cgroups", "loop", "veth"] {
        assert_eq!(state(&report, name), "ok", "{report}");
    }
    let (again, _) = check(&["--config", "/nowhere.toml"]);
    assert_eq!(state(&again, "configuration"), "lacking");
}

#[test]
fn without_cgroups_check_and_run_name_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wherry.toml");
    let sample = fs::read_to_string(dist("wherry.toml")).unwrap();
    let place = folder.path().display();
    let own = format!("data_dir = \"{place}/data\"\nrun_dir = \"{place}/run\"\n\n[broker]");
    fs::write(&file, sample.replacen("[broker]", &own, 1)).unwrap();
    let hidden = |words: &[&str]| -> Output {
        let hide = "mount -t tmpfs wherry-test /sys/fs/cgroup && exec timeout 60 \"$@\"";
        let mut command = tool("unshare", ["--mount", "sh", "-c", hide, "sh"]);
        output(command.arg(binary("wherry").unwrap()).args(words)).unwrap()
    };
    let checked = hidden(&["check", "-o", "json"]);
    assert_eq!(checked.status.code(), Some(1), "{}", both(&checked));
    let report: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(state(&report, "cgroups"), "lacking");
    assert_eq!(state(&report, "overlay"), "ok");
    let ran = hidden(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(ran.status.code(), Some(1), "{}", both(&ran));
    for part in ["lacking on this host: cgroups", "`wherry check`"] {
        assert!(both(&ran).contains(part), "{}", both(&ran));
    }
}

#[test]
fn without_a_configuration_run_says_where_it_comes_from() {
    let mut command = Command::new(binary("wherry").unwrap());
    let ran = output(command.args(["run", "--config", "/nowhere/wherry.toml"])).unwrap();
    assert!(!ran.status.success());
    assert!(both(&ran).contains("`wherry-cloud node config NODE`"), "{}", both(&ran));
}

fn check(words: &[&str]) -> (serde_json::Value, bool) {
    let mut command = Command::new(binary("wherry").unwrap());
    let checked = output(command.args(["check", "-o", "json"]).args(words)).unwrap();
    (serde_json::from_slice(&checked.stdout).unwrap(), checked.status.success())
}

fn state<'a>(report: &'a serde_json::Value, name: &str) -> &'a str {
    let rows = report["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = rows.iter().find(|row| row["name"] == name);
    row.and_then(|row| row["state"].as_str()).unwrap_or_default()
}
