//! `/etc/hosts` and `/etc/resolv.conf` of pods, and how to rewrite them while
//! programs read them.

use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The resolver reads no more (resolv.conf(5), `MAXNS`).
const NAMESERVERS_MAX: usize = 3;

/// What a pod's resolver has besides the node's, or (`alone`) instead of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolver<'a> {
    pub alone: bool,
    pub nameservers: &'a [IpAddr],
    /// Domains, with a space between.
    pub searches: &'a str,
    pub options: &'a str,
}

/// The contents of a pod's hosts file (hosts(5)).
///
/// Services come first, in the order given: their lines never move while pods
/// come and go. `own` is the pod's own name and address; `None` for a pod on
/// the host's network. `aliases` are its own words: addresses, each with its
/// names.
#[must_use]
pub fn hosts_file(
    own: Option<(&str, Ipv4Addr)>,
    services: &[(&str, Ipv4Addr)],
    aliases: &[(&str, IpAddr)],
    pods: &[(&str, Ipv4Addr)],
) -> String {
    let own = own.filter(|(name, _)| pods.iter().all(|(other, _)| other != name));
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for (name, address) in services {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    for (names, address) in aliases {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    for (name, address) in own.iter().chain(pods) {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// The contents of a pod's resolver file, from the host's (resolv.conf(5)).
///
/// Nameservers are those of `dns`, or if there are none the host's, unless it
/// is `on_host` without those that a pod cannot reach: loopback ones and,
/// since pods have IPv4 only, IPv6 ones. Search domains and options stay. What
/// the pod itself wants comes after them, or instead.
#[must_use]
pub fn resolv_conf(host_text: &str, dns: &[IpAddr], own: Resolver<'_>, on_host: bool) -> String {
    let mut base =
        Lines { nameservers: dns.iter().map(ToString::to_string).collect(), ..Lines::default() };
    if own.alone {
        base = Lines::default();
    } else {
        base.read(host_text, dns.is_empty(), on_host);
    }
    for address in own.nameservers.iter().map(ToString::to_string) {
        if !base.nameservers.contains(&address) {
            base.nameservers.push(address);
        }
    }
    base.searches.extend(words(own.searches));
    for option in words(own.options) {
        let name = |option: &str| option.split(':').next().map(str::to_owned);
        base.options.retain(|other| name(other) != name(&option));
        base.options.push(option);
    }
    base.text()
}

/// A resolver file, taken apart.
#[derive(Default)]
struct Lines {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
    rest: String,
}

impl Lines {
    fn read(&mut self, text: &str, nameservers: bool, on_host: bool) {
        for line in text.lines() {
            let (key, value) = line.trim().split_once(char::is_whitespace).unwrap_or((line, ""));
            match (key, words(value).next()) {
                ("nameserver", Some(address)) if nameservers => {
                    let reachable = address.parse::<Ipv4Addr>().is_ok_and(|a| !a.is_loopback());
                    if on_host || reachable {
                        self.nameservers.push(address);
                    }
                }
                // The last one counts.
                ("search" | "domain", Some(_)) => self.searches = words(value).collect(),
                ("options", _) => self.options.extend(words(value)),
                ("sortlist", Some(_)) => {
                    self.rest.push_str(line.trim());
                    self.rest.push('\n');
                }
                _ => (),
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for address in self.nameservers.iter().take(NAMESERVERS_MAX) {
            text.push_str(&format!("nameserver {address}\n"));
        }
        for (key, words) in [("search", &self.searches), ("options", &self.options)] {
            if !words.is_empty() {
                text.push_str(&format!("{key} {}\n", words.join(" ")));
            }
        }
        text + &self.rest
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split_whitespace().map(str::to_owned)
}

/// Gives the file new contents but keeps its inode, which is bind-mounted into
/// containers and so cannot be replaced. Makes the file, mode 0644, if it is
/// not there.
///
/// A reader finds old lines or new lines, never an empty file: one write, over
/// all of what was there, then the end is cut off. Up to then empty lines fill
/// it. Not durable: for files in RAM.
///
/// # Errors
/// Any of the file's operations fails; the caller names the path.
pub fn write_in_place(path: &Path, contents: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let old_bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = contents.as_bytes().to_vec();
    bytes.resize(old_bytes.max(bytes.len()), b'\n');
    file.write_all_at(&bytes, 0)?;
    file.set_len(contents.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 87, 0, 2);
    const B: Ipv4Addr = Ipv4Addr::new(10, 87, 0, 3);
    const SHOP: Ipv4Addr = Ipv4Addr::new(10, 87, 128, 1);

    #[test]
    fn services_stand_before_pods() {
        let plc = [("plc plc.example", "2001:db8::9".parse().unwrap())];
        let text = hosts_file(Some(("web-1", A)), &[("shop", SHOP)], &plc, &[("shop-4", B)]);
        let expected = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                        10.87.128.1\tshop\n2001:db8::9\tplc plc.example\n\
                        10.87.0.2\tweb-1\n10.87.0.3\tshop-4\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_pod_stands_once_and_one_on_the_hosts_network_not_at_all() {
        let text = hosts_file(Some(("web-1", A)), &[], &[], &[("web-1", A), ("web-2", B)]);
        assert_eq!(text.matches("web-1").count(), 1);
        assert_eq!(hosts_file(None, &[], &[], &[]).lines().count(), 2);
    }

    #[test]
    fn resolver_of_the_host_without_what_a_pod_cannot_reach() {
        let host = "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1\nsearch plant.example\noptions edns0 trust-ad\n";
        let expected = "nameserver 10.0.0.53\nsearch plant.example\noptions edns0 trust-ad\n";
        assert_eq!(resolv_conf(host, &[], Resolver::default(), false), expected);
    }

    #[test]
    fn a_pods_own_words_come_after_the_nodes_or_instead() {
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.53\nsearch plant.example\n\
                    options ndots:1 edns0\nsortlist 10.0.0.0\n";
        let nameservers = ["10.0.0.53", "10.2.2.2"].map(|text| text.parse().unwrap());
        let own = Resolver {
            alone: false,
            nameservers: &nameservers,
            searches: "line.example",
            options: "ndots:3 rotate",
        };
        let expected = "nameserver 10.0.0.53\nnameserver 10.2.2.2\n\
                        search plant.example line.example\noptions edns0 ndots:3 rotate\n\
                        sortlist 10.0.0.0\n";
        assert_eq!(resolv_conf(host, &[], own, false), expected);
        let on_host = resolv_conf(host, &[], own, true);
        assert!(on_host.starts_with("nameserver 127.0.0.53\nnameserver 10.0.0.53\n"), "{on_host}");
        let alone = "nameserver 10.0.0.53\nnameserver 10.2.2.2\nsearch line.example\n\
                     options ndots:3 rotate\n";
        for dns in [&[][..], &["10.9.9.9".parse().unwrap()]] {
            assert_eq!(resolv_conf(host, dns, Resolver { alone: true, ..own }, false), alone);
        }
    }

    #[test]
    fn configured_nameservers_replace_the_hosts() {
        let dns = ["10.1.1.1".parse().unwrap(), "10.1.1.2".parse().unwrap()];
        let text =
            resolv_conf("nameserver 10.0.0.53\nsearch a.example", &dns, Resolver::default(), false);
        assert_eq!(text, "nameserver 10.1.1.1\nnameserver 10.1.1.2\nsearch a.example\n");
        let many: Vec<IpAddr> = (1..9).map(|n| IpAddr::from([10, 1, 1, n])).collect();
        assert_eq!(
            resolv_conf("", &many, Resolver::default(), false).lines().count(),
            NAMESERVERS_MAX
        );
    }

    #[test]
    fn rewriting_keeps_the_inode_and_never_shows_an_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        write_in_place(&path, "first line\nsecond line\n").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let reading = path.clone();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let text = fs::read_to_string(&reading).unwrap();
                assert!(text.lines().any(|line| line == "first line"), "{text:?}");
                seen += 1;
            }
            seen
        });
        for round in 0..2000 {
            let more = "more\n".repeat(round % 7);
            write_in_place(&path, &format!("first line\n{more}")).unwrap();
        }
        drop(done);
        assert!(reader.join().unwrap() > 0);
        write_in_place(&path, "end\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "end\n");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }
}
