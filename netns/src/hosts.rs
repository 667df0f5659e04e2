//! `/etc/hosts` and `/etc/resolv.conf` of pods, and how to rewrite them while
//! programs read them.

use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The resolver reads no more (resolv.conf(5), `MAXNS`).
const NAMESERVERS_MAX: usize = 3;

/// The contents of a pod's hosts file (hosts(5)).
///
/// Services come first, in the order given: their lines never move while pods
/// come and go. `own` is the pod's own name and address; `None` for a pod on
/// the host's network.
#[must_use]
pub fn hosts_file(
    own: Option<(&str, Ipv4Addr)>,
    services: &[(&str, Ipv4Addr)],
    pods: &[(&str, Ipv4Addr)],
) -> String {
    let own = own.filter(|(name, _)| pods.iter().all(|(other, _)| other != name));
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for (name, address) in services.iter().chain(&own).chain(pods) {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// The contents of a pod's resolver file, from the host's (resolv.conf(5)).
///
/// Nameservers are those of `dns`, or if there are none the host's, without
/// those that a pod cannot reach: loopback ones and, since pods have IPv4
/// only, IPv6 ones. Search domains and options stay.
#[must_use]
pub fn resolv_conf(host_text: &str, dns: &[IpAddr]) -> String {
    let mut nameservers: Vec<IpAddr> = dns.to_vec();
    let mut rest = String::new();
    for line in host_text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) if dns.is_empty() => {
                let address = address.parse::<Ipv4Addr>().ok();
                nameservers.extend(address.filter(|a| !a.is_loopback()).map(IpAddr::V4));
            }
            (Some("search" | "domain" | "options" | "sortlist"), Some(_)) => {
                rest.push_str(line.trim());
                rest.push('\n');
            }
            _ => (),
        }
    }
    let lines = nameservers.iter().take(NAMESERVERS_MAX).map(|a| format!("nameserver {a}\n"));
    lines.chain([rest]).collect()
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
        let text = hosts_file(Some(("web-1", A)), &[("shop", SHOP)], &[("shop-4", B)]);
        let expected = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                        10.87.128.1\tshop\n10.87.0.2\tweb-1\n10.87.0.3\tshop-4\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_pod_stands_once_and_one_on_the_hosts_network_not_at_all() {
        let text = hosts_file(Some(("web-1", A)), &[], &[("web-1", A), ("web-2", B)]);
        assert_eq!(text.matches("web-1").count(), 1);
        assert_eq!(hosts_file(None, &[], &[]).lines().count(), 2);
    }

    #[test]
    fn resolver_of_the_host_without_what_a_pod_cannot_reach() {
        let host = "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1\nsearch plant.example\noptions edns0 trust-ad\n";
        let expected = "nameserver 10.0.0.53\nsearch plant.example\noptions edns0 trust-ad\n";
        assert_eq!(resolv_conf(host, &[]), expected);
    }

    #[test]
    fn configured_nameservers_replace_the_hosts() {
        let dns = ["10.1.1.1".parse().unwrap(), "10.1.1.2".parse().unwrap()];
        let text = resolv_conf("nameserver 10.0.0.53\nsearch a.example", &dns);
        assert_eq!(text, "nameserver 10.1.1.1\nnameserver 10.1.1.2\nsearch a.example\n");
        let many: Vec<IpAddr> = (1..9).map(|n| IpAddr::from([10, 1, 1, n])).collect();
        assert_eq!(resolv_conf("", &many).lines().count(), NAMESERVERS_MAX);
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
