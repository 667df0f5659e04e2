//! The host's own interfaces, where Wherry is the machine's first program.
//! It must NOT be used for links of pods.

use std::net::Ipv4Addr;

use crate::netlink::Netlink;
use crate::network::NetworkError;
use crate::pod;
use crate::route::{self, Link, Via};
use crate::subnet::Subnet;

/// Sets `lo` up.
///
/// # Errors
/// The kernel refuses.
pub fn set_loopback_up(netlink: &Netlink) -> Result<(), NetworkError> {
    pod::set_loopback_up(netlink)
}

/// Sets an interface up, without an address.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub fn bring_interface_up(netlink: &Netlink, name: &str) -> Result<(), NetworkError> {
    Ok(route::set_up(netlink, &link(netlink, name)?)?)
}

/// Sets an interface up with this address only (`prefix` up to 32), and the
/// default route over `gateway`, if given. Idempotent.
///
/// # Errors
/// There is no such interface, or the kernel refuses: a gateway that is not
/// of the interface's subnet is `ENETUNREACH`.
pub fn configure_interface(
    netlink: &Netlink,
    name: &str,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
) -> Result<(), NetworkError> {
    let link = link(netlink, name)?;
    route::set_address(netlink, &link, address, Subnet::masked(address, prefix.min(32)))?;
    route::set_up(netlink, &link)?;
    if let Some(gateway) = gateway {
        let everywhere = Subnet::masked(Ipv4Addr::UNSPECIFIED, 0);
        route::set_route(netlink, everywhere, &link, Via::Gateway(gateway))?;
    }
    Ok(())
}

fn link(netlink: &Netlink, name: &str) -> Result<Link, NetworkError> {
    route::link(netlink, name)?.ok_or_else(|| NetworkError::Missing(name.to_owned()))
}
