//! Images as people have them: a database that runs as a named user and keeps
//! its files in a declared volume, a program in Python, one that is alone in its
//! image, and one whose file has a capability.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wherry_tests::cloud::Cloud;
use wherry_tests::host::{Host, Side};
use wherry_tests::images::{Format, Images, Recipe};
use wherry_tests::node::pid;
use wherry_tests::observe::http_get;
use wherry_tests::package::{Component, Package};
use wherry_tests::run::run;
use wherry_tests::world::with_gateway;

const PYTHON: &str = "/usr/bin/python3.11";
const APP: &str = "
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'{os.getuid()} {os.environ[\"MODE\"]} {os.getcwd()}'.encode())

http.server.HTTPServer(('', 8000), Handler).serve_forever()
";
const REDIS_USER: &str = "redis:x:1234:1235::/:/bin/false\n";
/// Published on the gateway.
const REDIS_PORT: u16 = 6379;
const PYTHON_PORT: u16 = 8000;
const ALONE_PORT: u16 = 8001;
/// `CAP_NET_RAW`, as a bit.
const NET_RAW: &str = "0000000000002000";
/// Of one answer; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn peoples_images_run_as_they_are() {
    with_gateway("images", |host, cloud, node| {
        import(host, cloud)?;
        let components = vec![
            Component::new("redis", "redis:7", template("redis", Some(REDIS_PORT), "")),
            Component::new("python", "python:3", template("python", Some(PYTHON_PORT), MODE)),
            Component::new("alone", "alone:1", template("alone", Some(ALONE_PORT), "")),
            Component::new("caps", "caps:1", template("caps", None, CAPABILITY)),
        ];
        Package::new("1.0.0", components).roll_out(cloud, host)?;
        node.wait_running(1)?;

        let address = |port| node.place().address(port);
        let said = host.inside(Side::Wan, || redis(&address(REDIS_PORT)))?;
        ensure!(said == "+OK\r\n$5\r\nroars\r\n+OK\r\n", "{said:?}");
        let redis = pid(&node.pod("redis")?, "main")?;
        ensure!(status(redis, "Uid:")?.starts_with("1234"), "{}", status(redis, "Uid:")?);
        ensure!(status(redis, "Gid:")?.starts_with("1235"), "{}", status(redis, "Gid:")?);
        let kept = fs::metadata(format!("/proc/{redis}/root/data/dump.rdb"))?;
        ensure!(kept.len() > 0, "nothing was written");

        let said = host.inside(Side::Wan, || http_get(&address(PYTHON_PORT), "/"))?;
        ensure!(said == "1000 gentle /app", "{said}");
        let said = host.inside(Side::Wan, || http_get(&address(ALONE_PORT), "/"))?;
        ensure!(said == "alone\n", "{said}");
        let alone = pid(&node.pod("alone")?, "main")?;
        ensure!(status(alone, "Uid:")?.starts_with("65532"), "{}", status(alone, "Uid:")?);
        ensure!(!Path::new(&format!("/proc/{alone}/root/bin")).exists(), "there is a shell");

        let caps = pid(&node.pod("caps")?, "main")?;
        ensure!(status(caps, "CapEff:")? == NET_RAW, "{}", status(caps, "CapEff:")?);
        let of_file = run(Command::new("getcap").arg(format!("/proc/{caps}/root/raw/busybox")))?;
        ensure!(of_file.contains("cap_net_raw=ep"), "{of_file}");
        Ok(())
    });
}

const MODE: &str = "
          env: [{ name: MODE, value: gentle }]";
const CAPABILITY: &str = "
          securityContext: { capabilities: { add: [NET_RAW] } }";

fn template(name: &str, port: Option<u16>, more: &str) -> String {
    let port = port.map_or(String::new(), |port| {
        format!(
            "
          ports: [{{ containerPort: {port}, hostPort: {port} }}]
          readinessProbe: {{ tcpSocket: {{ port: {port} }}, periodSeconds: 1 }}"
        )
    });
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
        - name: main
          resources: {{ limits: {{ memory: 64Mi }} }}{port}{more}
"
    )
}

/// A line of `/proc/PID/status`.
fn status(pid: i32, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    Ok(line.with_context(|| format!("no {key}"))?.trim().to_owned())
}

/// Sets, gets, and has it written to its folder.
fn redis(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"SET lion roars\r\nGET lion\r\nSAVE\r\nQUIT\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.strip_suffix("+OK\r\n").unwrap_or(&said).to_owned())
}

fn import(host: &Host, cloud: &Cloud<'_>) -> Result<()> {
    let work = host.folder().join("made");
    fs::create_dir_all(&work)?;
    let images = Images::new(&work)?;
    let recipe = |tag, programs, files, entrypoint, user| Recipe {
        tag,
        programs,
        lion: false,
        files,
        entrypoint,
        user,
        stop_signal: None,
    };

    let options = ["--dir", "/data", "--bind", "0.0.0.0", "--protected-mode", "no"];
    let entrypoint = [&["/usr/bin/redis-server"][..], &options].concat();
    let (program, files) = (["/usr/bin/redis-server"], [("/etc/passwd", REDIS_USER)]);
    images.build(&recipe("redis-7", &program, &files, &entrypoint, "redis"))?;
    let root = work.join("redis-root");
    fs::create_dir_all(root.join("data"))?;
    chown(root.join("data"), Some(1234), Some(1235))?;
    images.add("redis-7", &root)?;
    images.declare_volume("redis-7", "/data")?;

    // What it loads, and nothing besides.
    let list = "import http.server, encodings.idna, sys\n\
                for module in list(sys.modules.values()):\n  \
                    path = getattr(module, '__file__', None)\n  \
                    if path and path.endswith('.py'): print(path)";
    let modules = run(Command::new(PYTHON).args(["-I", "-S", "-c", list]))?;
    let modules: Vec<&str> = modules.lines().collect();
    ensure!(modules.len() > 10, "{modules:?}");
    let files = [("/app/main.py", APP)];
    let words = [PYTHON, "-I", "-S", "main.py"];
    images.build(&recipe("python-3", &[PYTHON], &files, &words, "1000:1000"))?;
    let root = work.join("python-root");
    for module in modules {
        let path = root.join(module.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("a module has a folder")?)?;
        fs::copy(module, path)?;
    }
    images.add("python-3", &root)?;
    images.set_working_dir("python-3", "/app")?;

    let root = work.join("alone-root");
    fs::create_dir_all(root.join("www"))?;
    fs::copy("/bin/busybox", root.join("httpd"))?;
    fs::write(root.join("www/index.html"), "alone\n")?;
    let port = ALONE_PORT.to_string();
    images.build_bare("alone-1", &root, &["/httpd", "-f", "-p", &port, "-h", "/www"])?;

    let root = work.join("caps-root");
    fs::create_dir_all(root.join("raw"))?;
    let file = root.join("raw/busybox");
    fs::copy("/bin/busybox", &file)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    run(Command::new("setcap").arg("cap_net_raw+ep").arg(&file))?;
    let words = ["/raw/busybox", "sh", "-c", "sleep 1000000"];
    images.build(&recipe("caps-1", &[], &[], &words, "1000:1000"))?;
    images.add("caps-1", &root)?;

    for name in ["redis:7", "python:3", "alone:1", "caps:1"] {
        let archive = images.export(&name.replace(':', "-"), Format::OciArchive)?;
        let archive = archive.to_str().context("a plain path")?;
        cloud.cli(&["image", "import", archive, "--name", name])?;
    }
    Ok(())
}
