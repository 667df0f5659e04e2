//! Which of the host's ports another program listens at. `/proc/net/tcp`, …
//! (`proc_net(5)`), `/proc/PID/fd`, `/proc/PID/cgroup`.
//!
//! A pod on the host's network is found there too: by its cgroup it is known
//! as one of Wherry's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wherry_bundle::model::Protocol;

/// `TCP_LISTEN`, and for UDP `TCP_CLOSE`: bound, and connected to nobody
/// (`net/tcp_states.h`).
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";

/// By whom `port` is taken, for people; `None` if it is free, or a pod's below
/// the cgroup `prefix`.
#[must_use]
pub fn taken(prefix: &str, protocol: Protocol, port: u16) -> Option<String> {
    let (files, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], LISTENS),
        Protocol::Udp => (["udp", "udp6"], UNCONNECTED),
    };
    let tables = files.iter().filter_map(|file| {
        // Without IPv6 there is no table of it.
        fs::read_to_string(Path::new("/proc/self/net").join(file)).ok()
    });
    let sockets: BTreeSet<u64> =
        tables.flat_map(|table| sockets_at(&table, port, state).collect::<Vec<_>>()).collect();
    if sockets.is_empty() {
        return None;
    }
    let owners = owners(&sockets);
    if owners.is_empty() {
        return Some("taken by another program".into());
    }
    let foreign = owners.iter().find(|pid| !is_own(pid, prefix))?;
    let name = fs::read_to_string(format!("/proc/{foreign}/comm")).unwrap_or_default();
    Some(format!("taken by {} (process {foreign})", name.trim()))
}

/// The inodes of sockets that are in `state` at `port`.
fn sockets_at<'a>(
    table: &'a str,
    port: u16,
    state: &'a str,
) -> impl Iterator<Item = u64> + use<'a> {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, found, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (at == port && *found == state).then_some(inode.parse().ok()?)
    })
}

/// Processes that hold one of these sockets.
fn owners(sockets: &BTreeSet<u64>) -> Vec<String> {
    let wanted: BTreeSet<String> =
        sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().into_string().ok());
    let pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let holds = |pid: &String| {
        // It may have ended, or be another user's.
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| link.to_str().is_some_and(|link| wanted.contains(link)))
    };
    pids.filter(holds).collect()
}

fn is_own(pid: &str, prefix: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    is_below(&text, prefix)
}

/// One line a hierarchy, its path behind the second colon (`cgroups(7)`).
/// Pods are two folders below the prefix or deeper.
fn is_below(cgroups: &str, prefix: &str) -> bool {
    cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
        let mut parts = path.split('/').skip_while(|part| *part != prefix).skip(1);
        parts.next().is_some_and(|pod| !pod.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_listener_is_found_and_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let by = taken("wherry-test", Protocol::Tcp, port).unwrap();
        assert!(by.contains(&format!("(process {})", std::process::id())), "{by}");
        assert_eq!(taken("wherry-test", Protocol::Udp, port), None);
        // A connection's own port is nobody's in the way of others.
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = stream.local_addr().unwrap().port();
        assert_eq!(taken("wherry-test", Protocol::Tcp, own), None);
        drop(listener);
        let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        let port = udp.local_addr().unwrap().port();
        assert!(taken("wherry-test", Protocol::Udp, port).is_some());
    }

    #[test]
    fn tables_are_read_by_their_fields() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
            \x20  0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 77 1\n\
            \x20  1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000  0  0 78 1\n";
        assert_eq!(sockets_at(table, 8080, LISTENS).collect::<Vec<_>>(), [77]);
        assert_eq!(sockets_at(table, 8081, LISTENS).count(), 0);
        assert_eq!(sockets_at("nonsense\nmore\n", 1, LISTENS).count(), 0);
    }

    #[test]
    fn only_what_is_below_the_prefix_is_a_pods() {
        assert!(is_below("3:memory:/wherry/web-1/main\n0::/\n", "wherry"));
        assert!(is_below("0::/system.slice/wherry/web-1\n", "wherry"));
        for text in ["0::/wherry\n", "0::/\n", "0::/wherry2/web-1\n", "", "0::/wherry/\n"] {
            assert!(!is_below(text, "wherry"), "{text}");
        }
    }
}
