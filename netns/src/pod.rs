//! A pod's network namespace from inside.

use crate::netlink::Netlink;
use crate::network::NetworkError;
use crate::{route, sysctl};

/// Port 80 without a capability: inside its own network namespace a pod has
/// no one to protect low ports from.
const UNPRIVILEGED_PORTS: (&str, &str) = ("ipv4/ip_unprivileged_port_start", "0");
/// `ping` without `CAP_NET_RAW`, for every group.
const PING_GROUPS: (&str, &str) = ("ipv4/ping_group_range", "0 2147483647");
/// There is one way out of a pod, and nobody else may name another. `all` and
/// `default`, which is what `eth0` starts with.
const NO_REDIRECTS: [(&str, &str); 2] =
    [("ipv4/conf/all/accept_redirects", "0"), ("ipv4/conf/default/accept_redirects", "0")];
/// Pods have IPv4 only. What `default` says holds for `eth0`, which comes
/// later; `lo` keeps `::1`, which many programs bind.
const NO_IPV6: (&str, &str) = ("ipv6/conf/default/disable_ipv6", "1");

/// Sets up the new network namespace in which the calling thread is: settings
/// that hold for the whole namespace, and `lo`. Call it before
/// [`crate::Network::attach_pod`]. Idempotent.
///
/// # Errors
/// The kernel refused a setting; none of them is optional for what containers
/// are promised, except IPv6's on a kernel without IPv6.
pub fn prepare_pod_namespace() -> Result<(), NetworkError> {
    for (name, value) in [UNPRIVILEGED_PORTS, PING_GROUPS].into_iter().chain(NO_REDIRECTS) {
        sysctl::set(name, value)?;
    }
    sysctl::set_if_there(NO_IPV6.0, NO_IPV6.1)?;
    let netlink = Netlink::open()?;
    set_loopback_up(&netlink)
}

pub(crate) fn set_loopback_up(netlink: &Netlink) -> Result<(), NetworkError> {
    let lo = route::link(netlink, "lo")?.ok_or(NetworkError::Missing("lo".to_owned()))?;
    Ok(route::set_up(netlink, &lo)?)
}
