//! Layers on their way: what an update moves, what may interrupt it, and what
//! a person can carry.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use wherry_bundle::limits::TRANSFER_WINDOW_BYTES;
use wherry_tests::cloud::Cloud;
use wherry_tests::host::{Host, binary};
use wherry_tests::images::{Format, Images, Recipe};
use wherry_tests::node::PATIENCE;
use wherry_tests::package::{Component, Package};
use wherry_tests::run::wait_for;
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::with_gateway;

/// Of a large file in the images of this test, before it is compressed.
const FILE_BYTES: usize = 12 << 20;

#[test]
fn an_update_moves_what_changed_whatever_interrupts_it() {
    with_gateway("delta", |host, cloud, node| {
        import_large(host, cloud)?;
        // So slow that there is time for all that happens to it.
        node.end(Signal::SIGTERM)?;
        let config = fs::read_to_string(node.config())?;
        fs::write(node.config(), config + "[transfer]\nbytes_per_second_max = 500000\n")?;
        node.start()?;
        let start = host.received_bytes()?;
        package("1.0.0", "large:1").roll_out(cloud, host)?;
        let layers = Path::new(node.data()).join("layers");
        let mut interruptions = 0;
        let mut under_way = |more: u64| -> Result<()> {
            interruptions += 1;
            let before = part_bytes(&layers);
            wait_for("the transfer to go on", PATIENCE, || {
                Ok((part_bytes(&layers) >= before + more).then_some(()))
            })
        };
        under_way(200_000)?;
        wait_for("a rate", PATIENCE, || {
            let rate = node.json(&["status"])?["transfer"]["bytes_per_second"].as_u64();
            Ok((rate > Some(0)).then_some(()))
        })?;
        cloud.wait_node("progress in the cloud", |node| {
            node["transfer"]["bytes_total"].as_u64() > Some(1_000_000)
        })?;
        node.kill_supervisor()?;
        under_way(200_000)?;
        cloud.end(Signal::SIGKILL)?;
        cloud.start()?;
        under_way(200_000)?;
        host.uplink(false)?;
        std::thread::sleep(Duration::from_secs(1));
        host.uplink(true)?;
        under_way(200_000)?;
        node.restart(Signal::SIGKILL)?;
        node.wait_running(1)?;
        let whole = layer_bytes(&layers)?;
        let wire = host.received_bytes()? - start;
        // What is around chunks on the line is less than a tenth.
        let most = whole + whole / 10 + interruptions * TRANSFER_WINDOW_BYTES as u64;
        ensure!(wire <= most, "{wire} bytes for {whole} of layers, where {most} would do");
        let start = host.received_bytes()?;
        package("1.0.1", "large:2").roll_out(cloud, host)?;
        node.wait_running(2)?;
        let wire = host.received_bytes()? - start;
        ensure!(wire < whole / 5, "one byte of {whole} changed, and {wire} came");
        Ok(())
    });
}

#[test]
fn an_update_and_a_report_travel_on_a_stick() {
    with_gateway("stick", |host, cloud, node| {
        package("1.0.0", "lion:1.0.0").roll_out(cloud, host)?;
        node.wait_running(1)?;
        let config = cloud.json(&["node", "config", "gw-1"])?;
        let text = config["config"].as_str().context("its configuration")?;
        ensure!(text == cloud.cli(&["node", "config", "gw-1"])?, "{config}");
        let version = package("1.0.1", "lion:2.0.0").create(cloud, host)?;
        cloud.wait_node("the first version", |node| node["generation"] == 1)?;
        // With a farewell, so that the cloud need not wait to miss it.
        node.end(Signal::SIGTERM)?;
        cloud.wait_node("the node offline", |node| node["online"] == false)?;
        host.uplink(false)?;
        node.start()?;
        let [update, bad, report] =
            ["update", "bad", "report"].map(|name| host.folder().join(name).display().to_string());
        let export = ["version", "export", &version, "--node", "gw-1", "-o", &update];
        cloud.cli(&[&export[..], &["--since", "shop@1.0.0.1"]].concat())?;
        // Less than the layer that both versions have.
        let carried = fs::metadata(&update)?.len();
        let layers = layer_bytes(&Path::new(node.data()).join("layers"))?;
        ensure!(carried < layers / 2, "{carried} bytes, where the node holds {layers}");
        let before = node.processes()?;
        let mut bytes = fs::read(&update)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&bad, bytes)?;
        let refusal = node.cli(&["apply", &bad]).unwrap_err().to_string();
        ensure!(refusal.contains("checksum"), "{refusal}");
        ensure!(before == node.processes()?, "a damaged file touched what runs");
        node.cli(&["apply", &update])?;
        node.wait_running(2)?;
        node.cli(&["status", "--export", &report])?;
        cloud.cli(&["node", "import-status", &report])?;
        cloud.wait_node("the report", |node| node["generation"] == 2)?;
        let events = cloud.json(&["events", "gw-1", "--tail", "1000"])?.to_string();
        ensure!(events.contains("generation 2 taken up"), "{events}");
        let after = node.processes()?;
        host.uplink(true)?;
        cloud.wait_node("the node online", |node| node["online"] == true)?;
        wait_for("an empty outbox", PATIENCE, || {
            Ok((node.json(&["status"])?["events_waiting"] == 0).then_some(()))
        })?;
        ensure!(after == node.processes()?, "the line came back, and a process went");
        ensure!(node.json(&["status"])?["generation"] == 2);
        Ok(())
    });
}

fn package(number: &str, image: &str) -> Package {
    let template = lion("web", "", "", &env(&[EVERYWHERE, ("LION_VERSION", number)]));
    Package::new(number, vec![Component::new("web", image, template)])
}

/// `large:1` and `large:2`: one byte of a large file differs.
fn import_large(host: &Host, cloud: &Cloud<'_>) -> Result<()> {
    let work = host.folder().join("made");
    fs::create_dir_all(&work)?;
    let images = Images::new(&work)?;
    let mut file = fs::read(binary("wherry")?)?;
    ensure!(file.len() > FILE_BYTES, "the node's program is small");
    file.truncate(FILE_BYTES);
    for tag in ["large-1", "large-2"] {
        let root = work.join(format!("{tag}-root"));
        fs::create_dir_all(&root)?;
        fs::write(root.join("large"), &file)?;
        images.build(&Recipe {
            tag,
            programs: &[],
            lion: true,
            files: &[],
            entrypoint: &["/bin/wherry-lion"],
            user: "1000:1000",
            stop_signal: None,
        })?;
        images.add(tag, &root)?;
        let archive = images.export(tag, Format::OciArchive)?;
        let archive = archive.to_str().context("a plain path")?;
        cloud.cli(&["image", "import", archive, "--name", &tag.replace('-', ":")])?;
        file[FILE_BYTES / 2] ^= 1;
    }
    Ok(())
}

/// Of all layers under way, and of those that are there.
fn part_bytes(folder: &Path) -> u64 {
    bytes_of(folder, &["part", "squashfs"])
}

fn layer_bytes(folder: &Path) -> Result<u64> {
    ensure!(bytes_of(folder, &["part"]) == 0, "a part is left");
    Ok(bytes_of(folder, &["squashfs"]))
}

fn bytes_of(folder: &Path, endings: &[&str]) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let counts = |path: &Path| path.extension().is_some_and(|e| endings.iter().any(|of| e == *of));
    let files = files.filter(|entry| counts(&entry.path()));
    files.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}
