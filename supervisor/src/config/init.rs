//! The `[init]` section: what `wherry init` does to the machine it is the
//! first program of.
//!
//! A node refuses a file with any mistake; the first program cannot refuse to
//! run. [`salvage`] takes what is right of a file that is not.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use wherry_runtime::init::{Data, InitConfig, Interface, Setting, Watchdog};

use super::{BRIDGE_BYTES_MAX, Config, File, Wrong, folder, label};

/// More than any gateway's hardware needs.
const MODULES_MAX: usize = 128;
const INTERFACES_MAX: usize = 16;
const SERVICES_MAX: usize = 16;
const WORDS_MAX: usize = 64;
const WAIT_SECONDS: u32 = 30;
const WAIT_SECONDS_MAX: u32 = 300;
const WATCHDOG_SECONDS: u32 = 30;
/// Three proofs of life, a second apart at least; what drivers can count.
const WATCHDOG_SECONDS_MIN: u32 = 5;
const WATCHDOG_SECONDS_MAX: u32 = 3600;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InitTable {
    modules: Vec<String>,
    data: Option<DataTable>,
    watchdog: Option<WatchdogTable>,
    interfaces: Vec<InterfaceTable>,
    services: Vec<ServiceTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DataTable {
    device: String,
    fs: String,
    mount: PathBuf,
    #[serde(default)]
    options: String,
    wait_seconds: Option<u32>,
    #[serde(default)]
    fsck: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchdogTable {
    device: PathBuf,
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceTable {
    name: String,
    address: Option<String>,
    gateway: Option<Ipv4Addr>,
    dhcp: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceTable {
    command: Vec<String>,
}

impl InitTable {
    pub(super) fn check(self) -> Result<InitConfig, Wrong> {
        let count = |key, count: usize, max: usize| {
            if count <= max { Ok(()) } else { Err((key, format!("{count}: use at most {max}"))) }
        };
        count("init.modules", self.modules.len(), MODULES_MAX)?;
        count("init.interfaces", self.interfaces.len(), INTERFACES_MAX)?;
        count("init.services", self.services.len(), SERVICES_MAX)?;
        Ok(InitConfig {
            modules: self.modules.into_iter().map(module).collect::<Result<_, _>>()?,
            data: self.data.map(DataTable::check).transpose()?,
            watchdog: self.watchdog.map(WatchdogTable::check).transpose()?,
            interfaces: self
                .interfaces
                .into_iter()
                .map(InterfaceTable::check)
                .collect::<Result<_, _>>()?,
            services: self
                .services
                .into_iter()
                .map(|service| command("init.services.command", service.command))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl DataTable {
    fn check(self) -> Result<Data, Wrong> {
        let wait_seconds = self.wait_seconds.unwrap_or(WAIT_SECONDS);
        if wait_seconds > WAIT_SECONDS_MAX {
            return Err(("init.data.wait_seconds", format!("use at most {WAIT_SECONDS_MAX}")));
        }
        let fsck =
            if self.fsck.is_empty() { self.fsck } else { command("init.data.fsck", self.fsck)? };
        Ok(Data {
            device: text("init.data.device", self.device)?,
            fs: label("init.data.fs", self.fs, 32)?,
            mount: folder("init.data.mount", Some(self.mount), "")?,
            options: self.options,
            wait_seconds,
            fsck,
        })
    }
}

impl WatchdogTable {
    fn check(self) -> Result<Watchdog, Wrong> {
        let timeout_seconds = self.timeout_seconds.unwrap_or(WATCHDOG_SECONDS);
        if !(WATCHDOG_SECONDS_MIN..=WATCHDOG_SECONDS_MAX).contains(&timeout_seconds) {
            let what = format!("use {WATCHDOG_SECONDS_MIN} to {WATCHDOG_SECONDS_MAX} seconds");
            return Err(("init.watchdog.timeout_seconds", what));
        }
        let device = folder("init.watchdog.device", Some(self.device), "")?;
        Ok(Watchdog { device, timeout_seconds })
    }
}

impl InterfaceTable {
    fn check(self) -> Result<Interface, Wrong> {
        let setting = match (self.address, self.dhcp) {
            (Some(address), None) => {
                let (address, prefix) = address_of(&address)?;
                Setting::Static { address, prefix, gateway: self.gateway }
            }
            (None, Some(client)) if self.gateway.is_none() => {
                Setting::Dhcp(command("init.interfaces.dhcp", client)?)
            }
            (None, Some(_)) => {
                let what = "with dhcp the gateway comes from there: leave it out";
                return Err(("init.interfaces.gateway", what.into()));
            }
            (Some(_), Some(_)) | (None, None) => {
                let what = format!("`{}`: either address or dhcp is needed", self.name);
                return Err(("init.interfaces", what));
            }
        };
        let name = label("init.interfaces.name", self.name, BRIDGE_BYTES_MAX)?;
        Ok(Interface { name, setting })
    }
}

/// As `10.0.2.15/24`.
fn address_of(text: &str) -> Result<(Ipv4Addr, u8), Wrong> {
    let parts = text.split_once('/').and_then(|(address, prefix)| {
        Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
    });
    let wrong = || ("init.interfaces.address", format!("`{text}`: write it as 10.0.2.15/24"));
    parts.ok_or_else(wrong)
}

fn module(name: String) -> Result<String, Wrong> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let is_name = !name.is_empty() && name.bytes().all(plain);
    if is_name || (name.starts_with('/') && !name.contains('\0')) {
        Ok(name)
    } else {
        Err(("init.modules", format!("`{name}` is neither a name nor an absolute path")))
    }
}

fn command(key: &'static str, words: Vec<String>) -> Result<Vec<String>, Wrong> {
    let program = words.first().is_some_and(|program| program.starts_with('/'));
    if program && words.len() <= WORDS_MAX && !words.iter().any(|word| word.contains('\0')) {
        Ok(words)
    } else {
        let what = format!("use 1 to {WORDS_MAX} words, the first an absolute path");
        Err((key, what))
    }
}

fn text(key: &'static str, text: String) -> Result<String, Wrong> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err((key, format!("`{text}` is no device")));
    }
    Ok(text)
}

/// What a file says about the machine, and what is wrong with it, if it is
/// not right: then as much as can be understood.
#[must_use]
pub fn salvage(path: &Path) -> (InitConfig, Vec<String>) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return (InitConfig::default(), vec![format!("{}: {error}", path.display())]),
    };
    match Config::parse(&text, path) {
        Ok(config) => (config.init, Vec::new()),
        Err(error) => (salvage_text(&text), vec![error.to_string()]),
    }
}

fn salvage_text(text: &str) -> InitConfig {
    #[derive(Deserialize)]
    struct OnlyInit {
        #[serde(default)]
        init: toml::Table,
    }
    let whole = toml::from_str::<OnlyInit>(text);
    let Ok(OnlyInit { init: mut table }) = whole.or_else(|_| toml::from_str(&own_lines(text)))
    else {
        return InitConfig::default();
    };
    // Each part by itself: a wrong watchdog is not to cost the data.
    let mut config = InitConfig::default();
    for value in list(table.remove("modules")) {
        config.modules.extend(part::<String>(value).and_then(|name| module(name).ok()));
    }
    let data = table.remove("data").and_then(part::<DataTable>);
    config.data = data.and_then(|data| data.check().ok());
    let watchdog = table.remove("watchdog").and_then(part::<WatchdogTable>);
    config.watchdog = watchdog.and_then(|watchdog| watchdog.check().ok());
    for value in list(table.remove("interfaces")) {
        let interface = part::<InterfaceTable>(value);
        config.interfaces.extend(interface.and_then(|interface| interface.check().ok()));
    }
    for value in list(table.remove("services")) {
        let service = part::<ServiceTable>(value);
        config.services.extend(service.and_then(|service| command("", service.command).ok()));
    }
    config
}

fn part<T: DeserializeOwned>(value: toml::Value) -> Option<T> {
    value.try_into().ok()
}

fn list(value: Option<toml::Value>) -> Vec<toml::Value> {
    match value {
        Some(toml::Value::Array(values)) => values,
        Some(_) | None => Vec::new(),
    }
}

/// The lines of a file, which somewhere is no TOML, that are about us.
fn own_lines(text: &str) -> String {
    let mut own = false;
    let lines = text.lines().filter(|line| {
        if line.starts_with('[') {
            let name = line.trim_start_matches('[').trim_start();
            own = name.strip_prefix("init").is_some_and(|rest| rest.starts_with(['.', ']', ' ']));
        }
        own
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The section in `file`, checked.
pub(super) fn of(file: &mut File) -> Result<InitConfig, Wrong> {
    file.init.take().unwrap_or_default().check()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "node = \"gw-1\"\ntrusted_keys = \
        [\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"]\n\
        [broker]\nhost = \"b\"\n";
    const FULL: &str = "[init]\nmodules = [\"virtio_net\", \"/lib/a.ko\"]\n\
        data = { device = \"/dev/vda\", fs = \"ext4\", mount = \"/data\", fsck = [\"/sbin/e2fsck\", \"-p\"] }\n\
        watchdog = { device = \"/dev/watchdog\", timeout_seconds = 20 }\n\
        [[init.interfaces]]\nname = \"eth0\"\naddress = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\n\
        [[init.interfaces]]\nname = \"eth1\"\ndhcp = [\"/sbin/udhcpc\", \"-f\"]\n\
        [[init.services]]\ncommand = [\"/sbin/getty\", \"tty1\"]\n";

    fn parse(text: &str) -> Result<InitConfig, String> {
        let config = Config::parse(text, Path::new("/etc/w.toml"));
        config.map(|config| config.init).map_err(|error| error.to_string())
    }

    #[test]
    fn a_full_section_is_honoured() {
        let config = parse(&format!("{HEAD}{FULL}")).unwrap();
        assert_eq!(config.modules, ["virtio_net", "/lib/a.ko"]);
        let data = config.data.as_ref().unwrap();
        assert_eq!((data.wait_seconds, data.fs.as_str()), (30, "ext4"));
        assert_eq!(data.fsck, ["/sbin/e2fsck", "-p"]);
        assert_eq!(config.watchdog.as_ref().unwrap().timeout_seconds, 20);
        let gateway = Some(Ipv4Addr::new(10, 0, 2, 2));
        let address = Ipv4Addr::new(10, 0, 2, 15);
        assert_eq!(config.interfaces[0].setting, Setting::Static { address, prefix: 24, gateway });
        assert!(matches!(&config.interfaces[1].setting, Setting::Dhcp(words) if words.len() == 2));
        assert_eq!(config.services, [["/sbin/getty", "tty1"]]);
        assert_eq!(parse(HEAD).unwrap(), InitConfig::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, parts) in [
            ("[init]\nmodule = []\n", &["line 6", "unknown key `module`", "`modules`"][..]),
            ("[init]\ndata = { device = \"/d\" }\n", &["line 6", "missing key `fs`"]),
            (
                "[init]\ndata = { device = \"/d\", fs = \"ext4\", mount = \"d\" }\n",
                &["init.data.mount"],
            ),
            ("[init]\nmodules = [\"../x\"]\n", &["init.modules", "../x"]),
            ("[init]\nwatchdog = { device = \"/w\", timeout_seconds = 1 }\n", &["timeout_seconds"]),
            ("[[init.services]]\ncommand = []\n", &["init.services.command"]),
            ("[[init.services]]\ncommand = [\"sh\"]\n", &["absolute"]),
            ("[[init.interfaces]]\nname = \"e\"\n", &["address or dhcp"]),
            ("[[init.interfaces]]\nname = \"e\"\naddress = \"10.0.0.1\"\n", &["10.0.2.15/24"]),
            ("[[init.interfaces]]\nnam = \"e\"\n", &["line 6", "unknown key `nam`"]),
        ] {
            let error = parse(&format!("{HEAD}{text}")).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "`{part}` is not in: {error}");
            }
        }
    }

    #[test]
    fn what_is_right_of_a_wrong_file_is_used() {
        let full = parse(&format!("{HEAD}{FULL}")).unwrap();
        // Another section, no TOML at all elsewhere, one part of this section.
        for text in [
            format!("{}{FULL}", HEAD.replace("host", "hots")),
            format!("{}{FULL}", HEAD.replace("node = ", "node ")),
            format!("{HEAD}{FULL}[logs]\nfile_bytes_max = = 2\n"),
        ] {
            assert!(parse(&text).is_err());
            assert_eq!(salvage_text(&text), full, "{text}");
        }
        let config = salvage_text(&format!("{HEAD}{}", FULL.replace("timeout_seconds", "timeout")));
        assert_eq!((config.watchdog.is_none(), &config.data), (true, &full.data));
        assert_eq!(config.services, full.services);
        assert_eq!(salvage_text("= = ="), InitConfig::default());
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_not_an_end() {
        let (config, problems) = salvage(Path::new("/wherry-test/none.toml"));
        assert_eq!((config, problems.len()), (InitConfig::default(), 1));
    }
}
