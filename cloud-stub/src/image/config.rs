//! An image's configuration (OCI image specification v1, "config"; Docker's
//! is the same), judged and made plain.
//!
//! Fields without a meaning here (exposed ports, labels, history) are passed
//! over: a template says what a pod has.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use wherry_bundle::Digest;
use wherry_bundle::limits::{LAYERS_MAX, PATH_BYTES_MAX, VOLUMES_MAX};
use wherry_bundle::model::{is_below, is_container_path, is_mount_point};

use super::ImportError;
use super::error::printable;
use super::manifest::json;

const SIGTERM: u8 = 15;
/// Of the C libraries (two and three are theirs): what `SIGRTMIN` means in
/// an image, as in Docker.
const SIGRTMIN: u8 = 34;
const SIGRTMAX: u8 = 64;

/// What an image says about itself.
#[derive(Debug)]
pub(super) struct ImageConfig {
    pub architecture: String,
    /// Of the uncompressed layers, bottom first.
    pub diff_ids: Vec<Digest>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    /// As written; see [`super::user::resolve`].
    pub user: String,
    pub stop_signal: u8,
    /// Folders that the program is known to write to; ordered, none in
    /// another.
    pub volumes: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    architecture: String,
    variant: Option<String>,
    os: String,
    config: Option<Execution>,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Execution {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    /// A set: its values are empty.
    volumes: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// Reads a configuration. `None` if it is not for Linux. `variant` is what
/// the index said about it; `image` names it in errors.
pub(super) fn parse(
    bytes: &[u8],
    variant: Option<&str>,
    image: &str,
) -> Result<Option<ImageConfig>, ImportError> {
    let document: Document = json(&format!("the configuration of {image}"), bytes)?;
    let refuse = |what: String| ImportError::image(image, what);
    if document.os != "linux" {
        return Ok(None);
    }
    let variant = document.variant.as_deref().or(variant).unwrap_or_default();
    let diff_ids = document.rootfs.diff_ids.iter().map(|text| {
        let id = Digest::parse(text).filter(|_| text.starts_with("sha256:"));
        id.ok_or_else(|| refuse(format!("`{}` is not a diff_id", printable(text.as_bytes()))))
    });
    let diff_ids: Vec<Digest> = diff_ids.collect::<Result<_, _>>()?;
    if diff_ids.is_empty() || diff_ids.len() > LAYERS_MAX {
        let count = diff_ids.len();
        return Err(refuse(format!("has {count} layers, where 1 to {LAYERS_MAX} are allowed")));
    }
    let run = document.config.unwrap_or_default();
    let env = run.env.unwrap_or_default();
    let entrypoint = run.entrypoint.unwrap_or_default();
    let cmd = run.cmd.unwrap_or_default();
    let user = run.user.unwrap_or_default();
    for word in env.iter().chain(&entrypoint).chain(&cmd).chain([&user]) {
        if word.contains('\0') {
            return Err(refuse("has a NUL character in its configuration".into()));
        }
    }
    if let Some(bad) = env.iter().find(|word| matches!(word.find('='), None | Some(0))) {
        let bad = printable(bad.as_bytes());
        return Err(refuse(format!("`{bad}` in Env is not NAME=value")));
    }
    let working_dir = run.working_dir.unwrap_or_default();
    let Some(working_dir) = plain_dir(&working_dir) else {
        let shown = printable(working_dir.as_bytes());
        return Err(refuse(format!("WorkingDir `{shown}` is not a plain absolute path")));
    };
    let stop_signal = run.stop_signal.unwrap_or_default();
    let Some(stop_signal) = signal(&stop_signal) else {
        let shown = printable(stop_signal.as_bytes());
        return Err(refuse(format!("StopSignal `{shown}` is not a Linux signal")));
    };
    let declared = run.volumes.unwrap_or_default();
    let volumes = volumes(declared.keys()).map_err(|path| {
        refuse(format!("`{}` in Volumes is not a plain absolute path", printable(path.as_bytes())))
    })?;
    if volumes.len() > VOLUMES_MAX {
        let count = volumes.len();
        return Err(refuse(format!("has {count} volumes, where {VOLUMES_MAX} are allowed")));
    }
    let architecture = platform(&document.architecture, variant)
        .ok_or_else(|| refuse("has no usable architecture".into()))?;
    Ok(Some(ImageConfig {
        architecture,
        diff_ids,
        entrypoint,
        cmd,
        env,
        working_dir,
        user,
        stop_signal,
        volumes,
    }))
}

/// Architecture and variant in one: spellings as containerd normalises them,
/// the usual variant left out, but never that of 32 bit ARM.
fn platform(architecture: &str, variant: &str) -> Option<String> {
    let plain = |text: &str| text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if architecture.is_empty() || !plain(architecture) || !plain(variant) {
        return None;
    }
    Some(match (architecture, variant) {
        ("x86_64" | "amd64", "" | "v1") => "amd64".into(),
        ("aarch64" | "arm64", "" | "8" | "v8") => "arm64".into(),
        ("armhf", _) | ("arm", "" | "7" | "v7") => "arm/v7".into(),
        ("armel", _) | ("arm", "6" | "v6") => "arm/v6".into(),
        ("arm", "5" | "v5") => "arm/v5".into(),
        ("i386", _) => "386".into(),
        (architecture, "") => architecture.into(),
        (architecture, variant) => format!("{architecture}/{variant}"),
    })
}

/// Those that lie in no other; the first that is none.
fn volumes<'a>(paths: impl Iterator<Item = &'a String>) -> Result<Vec<String>, &'a String> {
    let mut plain = BTreeSet::new();
    for path in paths {
        plain.insert(plain_dir(path).filter(|dir| is_mount_point(dir)).ok_or(path)?);
    }
    let in_another = |path: &String| plain.iter().any(|o| o != path && is_below(path, o));
    Ok(plain.iter().filter(|path| !in_another(path)).cloned().collect())
}

/// `/app//x/` as `/app/x`; nothing is `/`.
fn plain_dir(dir: &str) -> Option<String> {
    if !dir.is_empty() && !dir.starts_with('/') {
        return None;
    }
    let parts: Vec<&str> = dir.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let dir = format!("/{}", parts.join("/"));
    (dir.len() <= PATH_BYTES_MAX && is_container_path(&dir)).then_some(dir)
}

/// A signal's number: `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3` (signal(7)).
fn signal(text: &str) -> Option<u8> {
    if text.is_empty() {
        return Some(SIGTERM);
    }
    if let Ok(number) = text.parse::<u8>() {
        return (1..=SIGRTMAX).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: u8 =
            if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return SIGRTMIN.checked_add(offset).filter(|&number| number <= SIGRTMAX);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset: u8 =
            if offset.is_empty() { 0 } else { offset.strip_prefix('-')?.parse().ok()? };
        return SIGRTMAX.checked_sub(offset).filter(|&number| number >= SIGRTMIN);
    }
    let (_, number) = SIGNALS.iter().find(|(known, _)| *known == name)?;
    Some(*number)
}

/// Numbers that are the same on every architecture we run on (all but MIPS,
/// Alpha, SPARC and PA-RISC).
const SIGNALS: [(&str, u8); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("", 15),
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGQUIT", 3),
            ("SIGWINCH", 28),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
        ] {
            assert_eq!(signal(text), Some(number), "{text}");
        }
        for bad in ["0", "65", "-1", "SIGNOPE", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "SIG"]
        {
            assert_eq!(signal(bad), None, "{bad}");
        }
    }

    #[test]
    fn platforms_have_one_spelling() {
        for (architecture, variant, whole) in [
            ("amd64", "", "amd64"),
            ("arm64", "v8", "arm64"),
            ("aarch64", "", "arm64"),
            ("arm", "", "arm/v7"),
            ("arm", "v6", "arm/v6"),
            ("riscv64", "", "riscv64"),
            ("amd64", "v3", "amd64/v3"),
        ] {
            assert_eq!(platform(architecture, variant).as_deref(), Some(whole));
        }
        assert_eq!(platform("", ""), None);
        assert_eq!(platform("a/b", ""), None);
    }

    #[test]
    fn working_dirs_are_plain() {
        assert_eq!(plain_dir("").as_deref(), Some("/"));
        assert_eq!(plain_dir("/app//x/./").as_deref(), Some("/app/x"));
        for bad in ["app", "/a/../b", "/proc/1", "/a\nb", &format!("/{}", "x".repeat(255))] {
            assert_eq!(plain_dir(bad), None, "{bad}");
        }
    }

    fn config(execution: &str) -> String {
        let id = "0".repeat(64);
        format!(
            r#"{{"architecture":"arm","os":"linux","config":{execution},
                "rootfs":{{"type":"layers","diff_ids":["sha256:{id}"]}}}}"#
        )
    }

    #[test]
    fn absent_fields_have_defaults() {
        let text = config(r#"{"Entrypoint":null,"Labels":{"a":"b"}}"#);
        let parsed = parse(text.as_bytes(), Some("v6"), "x").unwrap().unwrap();
        assert_eq!(parsed.architecture, "arm/v6");
        assert_eq!((parsed.stop_signal, parsed.working_dir.as_str()), (15, "/"));
        assert!(parsed.entrypoint.is_empty() && parsed.user.is_empty());
        let windows = text.replace("linux", "windows");
        assert!(parse(windows.as_bytes(), None, "x").unwrap().is_none());
    }

    #[test]
    fn hostile_configurations_are_refused() {
        for (execution, reason) in [
            (r#"{"Env":["NOVALUE"]}"#, "not NAME=value"),
            (r#"{"Env":["=x"]}"#, "not NAME=value"),
            (r#"{"Cmd":["a\u0000b"]}"#, "NUL"),
            (r#"{"WorkingDir":"/proc/self"}"#, "WorkingDir"),
            (r#"{"StopSignal":"SIGNOPE"}"#, "StopSignal"),
            (r#"{"Cmd":"not a list"}"#, "not valid JSON"),
        ] {
            let error = parse(config(execution).as_bytes(), None, "x").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let no_layer = config("{}").replace(&format!("\"sha256:{}\"", "0".repeat(64)), "");
        let error = parse(no_layer.as_bytes(), None, "x").unwrap_err().to_string();
        assert!(error.contains("has 0 layers"), "{error}");
        let many = vec![format!("\"sha256:{}\"", "0".repeat(64)); LAYERS_MAX + 1].join(",");
        let many = config("{}").replace(&format!("\"sha256:{}\"", "0".repeat(64)), &many);
        let error = parse(many.as_bytes(), None, "x").unwrap_err().to_string();
        assert!(error.contains("has 33 layers"), "{error}");
    }
}
