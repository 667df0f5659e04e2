//! The node's pod network: bridge, pod namespaces' links and addresses,
//! published services, and the files by which programs look names up.
//!
//! Speaks netlink (rtnetlink, nfnetlink) itself; runs no program. It touches
//! its own bridge, links named after it and its own nftables table, and
//! nothing else of the host but two settings that
//! [`Network::ensure_host`] names. It must NOT know of pods' life cycle: it
//! is told numbers, addresses and namespaces.
//!
//! Kernel options: `BRIDGE`, `VETH`, `NF_TABLES_IPV4`, `NFT_NAT`, `NFT_MASQ`,
//! `NFT_CT`, `NFT_NUMGEN`, `NFT_FIB_IPV4`, `NFT_REJECT_IPV4`, `NF_CT_NETLINK`.

#![forbid(unsafe_code)]

mod conntrack;
mod hosts;
mod interface;
mod message;
mod netlink;
mod network;
mod nft;
mod pod;
mod route;
mod ruleset;
mod service;
mod subnet;
mod sysctl;

pub use hosts::{Resolver, hosts_file, resolv_conf, write_in_place};
pub use interface::{bring_interface_up, configure_interface, set_loopback_up};
pub use netlink::{Netlink, NetlinkError};
pub use network::{Network, NetworkConfig, NetworkError};
pub use pod::prepare_pod_namespace;
pub use service::{Protocol, PublishedPort, Service, ServiceError};
pub use subnet::{Subnet, SubnetError};
pub use sysctl::SysctlError;
