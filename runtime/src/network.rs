//! The launcher's use of the pod network: bridge when the first pod needs
//! it, published services, and every pod's hosts and resolver files.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use wherry_bundle::model::Protocol;
use wherry_netns::{
    Netlink, NetlinkError, Network, NetworkConfig, NetworkError, Resolver, Subnet, SubnetError,
};

use crate::folders::PodFolder;
use crate::launcher::NetworkSettings;
use crate::proto::{Dns, PodSpec, Services};

const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why a pod has no network, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    #[error("network.subnet: {0}")]
    Subnet(#[from] SubnetError),
    #[error("network: {0}")]
    Network(#[from] NetworkError),
    #[error("network: {0}")]
    Netlink(#[from] NetlinkError),
    #[error("address {0} is not of the pods' subnet")]
    NotOurs(Ipv4Addr),
    #[error("writing {path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// The node's network and what is published on it.
#[derive(Debug)]
pub struct PodNetwork {
    network: Network,
    dns: Vec<IpAddr>,
    /// Opened, and the bridge made, when first needed.
    host: Option<Netlink>,
    /// Published names, for hosts files. Not known after a restart until the
    /// supervisor publishes again; the files keep what they have until then.
    names: Vec<(String, Ipv4Addr)>,
}

/// A pod as other pods' hosts files show it.
pub type HostEntry<'a> = (&'a str, Ipv4Addr);

impl PodNetwork {
    /// # Errors
    /// Settings that can be no network's.
    pub fn new(settings: &NetworkSettings) -> Result<Self, PodNetworkError> {
        let subnet = Subnet::new(settings.subnet_base, settings.subnet_prefix)?;
        let network = Network::new(NetworkConfig { bridge: settings.bridge.clone(), subnet })?;
        Ok(Self { network, dns: settings.dns.clone(), host: None, names: Vec::new() })
    }

    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The number that the pods' subnet gives to `address`.
    ///
    /// # Errors
    /// [`PodNetworkError::NotOurs`].
    pub fn number_of(&self, address: Ipv4Addr) -> Result<u16, PodNetworkError> {
        let base = self.network.pod_subnet().base().to_bits();
        address
            .to_bits()
            .checked_sub(base)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|&number| self.network.pod_address(number) == Some(address))
            .ok_or(PodNetworkError::NotOurs(address))
    }

    /// Makes bridge, settings and table, once a launcher.
    ///
    /// # Errors
    /// The kernel refuses, or the bridge's name is taken.
    pub fn ensure_host(&mut self) -> Result<(), PodNetworkError> {
        if self.host.is_none() {
            let host = Netlink::open()?;
            self.network.ensure_host(&host)?;
            self.host = Some(host);
        }
        Ok(())
    }

    /// Replaces what is published.
    ///
    /// # Errors
    /// The kernel refuses; then the former rules stay.
    pub fn publish(&mut self, services: &Services) -> Result<(), PodNetworkError> {
        // Without the bridge there is no rule to take away either.
        if services.0.is_empty() && self.host.is_none() {
            return Ok(());
        }
        self.ensure_host()?;
        let plain: Vec<_> = services.0.iter().map(plain_service).collect();
        self.network.publish(&plain)?;
        self.names = plain.into_iter().map(|service| (service.name, service.address)).collect();
        Ok(())
    }

    /// Writes hosts, resolv.conf and hostname of a new pod.
    ///
    /// # Errors
    /// The run folder is full.
    pub fn write_files(
        &self,
        pod: &PodSpec,
        folder: &PodFolder,
        pods: &[HostEntry<'_>],
    ) -> Result<(), PodNetworkError> {
        // A host without one has its resolver on 127.0.0.1 (resolv.conf(5)).
        let host_text = fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default();
        let on_host = pod.address.is_none();
        let resolv_conf = if on_host && self.dns.is_empty() && pod.dns == Dns::default() {
            host_text
        } else {
            let own = Resolver {
                alone: pod.dns.alone,
                nameservers: &pod.dns.nameservers,
                searches: &pod.dns.searches,
                options: &pod.dns.options,
            };
            wherry_netns::resolv_conf(&host_text, &self.dns, own, on_host)
        };
        let hosts = self.hosts(pod, pods);
        for (path, text) in [
            (folder.hosts(), hosts),
            (folder.resolv_conf(), resolv_conf),
            (folder.hostname(), format!("{}\n", pod.name)),
        ] {
            fs::write(&path, text).map_err(|source| PodNetworkError::File { path, source })?;
        }
        Ok(())
    }

    /// Brings one pod's hosts file up to date, in place: containers have it
    /// mounted.
    ///
    /// # Errors
    /// The run folder is full.
    pub fn update_hosts(
        &self,
        pod: &PodSpec,
        folder: &PodFolder,
        pods: &[HostEntry<'_>],
    ) -> Result<(), PodNetworkError> {
        let path = folder.hosts();
        wherry_netns::write_in_place(&path, &self.hosts(pod, pods))
            .map_err(|source| PodNetworkError::File { path, source })
    }

    fn hosts(&self, pod: &PodSpec, pods: &[HostEntry<'_>]) -> String {
        let own = pod.address.map(|address| (pod.name.as_str(), address));
        let names: Vec<HostEntry<'_>> =
            self.names.iter().map(|(name, address)| (name.as_str(), *address)).collect();
        let others: Vec<HostEntry<'_>> =
            pods.iter().copied().filter(|(name, _)| *name != pod.name.as_str()).collect();
        let aliases: Vec<(&str, IpAddr)> =
            pod.host_aliases.iter().map(|(address, names)| (&**names, *address)).collect();
        wherry_netns::hosts_file(own, &names, &aliases, &others)
    }

    /// Forgets connections that a pod that is gone was answering.
    pub fn forget(&self, address: Ipv4Addr) {
        if let Err(error) = self.network.forget_pod(address) {
            log::warn!("connections of {address}: {error}");
        }
    }

    /// Takes bridge, links and rules away.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_host(&mut self) -> Result<(), PodNetworkError> {
        let host = match self.host.take() {
            Some(host) => host,
            None => Netlink::open()?,
        };
        Ok(self.network.remove_host(&host)?)
    }
}

fn plain_service(service: &crate::proto::Service) -> wherry_netns::Service {
    let ports = service.ports.iter().map(|port| wherry_netns::PublishedPort {
        protocol: match port.protocol {
            Protocol::Tcp => wherry_netns::Protocol::Tcp,
            Protocol::Udp => wherry_netns::Protocol::Udp,
        },
        host_port: port.host_port,
        container_port: port.container_port,
    });
    wherry_netns::Service {
        name: service.name.to_string(),
        address: service.address,
        pods: service.pods.to_vec(),
        ports: ports.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> PodNetwork {
        PodNetwork::new(&NetworkSettings {
            bridge: "wherry0".into(),
            subnet_base: Ipv4Addr::new(10, 87, 0, 0),
            subnet_prefix: 16,
            dns: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn only_pods_addresses_have_numbers() {
        let network = network();
        assert_eq!(network.number_of(Ipv4Addr::new(10, 87, 1, 4)).unwrap(), 260);
        for address in
            [[10, 87, 0, 1], [10, 87, 0, 0], [10, 87, 128, 1], [10, 86, 0, 9], [127, 0, 0, 1]]
        {
            assert!(network.number_of(address.into()).is_err(), "{address:?}");
        }
    }
}
