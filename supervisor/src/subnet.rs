//! The config's subnet: its lower half holds pods, its upper half services.
//! The reconciler speaks of host numbers, the launcher of addresses; this
//! joins them.
//!
//! Never here: interfaces and rules.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Bits of the network part. Not to be chosen: the reconciler gives out host
/// numbers of half a /16, an address that was just given back last.
pub const PREFIX: u8 = 16;
/// Addresses in either half.
const HALF: u32 = 1 << (31 - PREFIX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: Ipv4Addr,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("`{0}` is not a subnet: write it as 10.87.0.0/16")]
    Form(String),
    #[error("/{0} is not possible: use a /{PREFIX}")]
    Prefix(u8),
    #[error("{base} is not the first address of a /{PREFIX}: that is {first}")]
    Base { base: Ipv4Addr, first: Ipv4Addr },
}

impl Subnet {
    #[must_use]
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    /// The address of the pod with host number `number`; `None` when the
    /// pods' half has no such number. 0 is the network, 1 the bridge.
    #[must_use]
    pub fn pod(&self, number: u16) -> Option<Ipv4Addr> {
        let number = u32::from(number);
        let usable = (2..HALF - 1).contains(&number);
        usable.then(|| Ipv4Addr::from(u32::from(self.base) + number))
    }

    /// The service address with host number `number` in the services' half.
    #[must_use]
    pub fn service(&self, number: u16) -> Option<Ipv4Addr> {
        let number = u32::from(number);
        let usable = (1..HALF - 1).contains(&number);
        usable.then(|| Ipv4Addr::from(u32::from(self.base) + HALF + number))
    }

    /// The host number of a pod's address.
    #[must_use]
    pub fn pod_number(&self, address: Ipv4Addr) -> Option<u16> {
        let number = u32::from(address).checked_sub(u32::from(self.base))?;
        let number = u16::try_from(number).ok()?;
        self.pod(number).map(|_| number)
    }
}

impl Default for Subnet {
    fn default() -> Self {
        Self { base: Ipv4Addr::new(10, 87, 0, 0) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{PREFIX}", self.base)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let form = || SubnetError::Form(text.chars().take(40).collect());
        let (base, prefix) = text.split_once('/').ok_or_else(form)?;
        let base: Ipv4Addr = base.parse().map_err(|_| form())?;
        let prefix: u8 = prefix.parse().map_err(|_| form())?;
        if prefix != PREFIX {
            return Err(SubnetError::Prefix(prefix));
        }
        let first = Ipv4Addr::from(u32::from(base) & (u32::MAX << (32 - PREFIX)));
        if first == base { Ok(Self { base }) } else { Err(SubnetError::Base { base, first }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_below_services() {
        let subnet = Subnet::default();
        assert_eq!(subnet.pod(2), Some(Ipv4Addr::new(10, 87, 0, 2)));
        assert_eq!(subnet.pod(258), Some(Ipv4Addr::new(10, 87, 1, 2)));
        assert_eq!(subnet.service(1), Some(Ipv4Addr::new(10, 87, 128, 1)));
        for number in [0, 1, 0x7fff, 0x8000, u16::MAX] {
            assert_eq!(subnet.pod(number), None, "{number}");
        }
        assert_eq!(subnet.service(0), None);
        assert_eq!(subnet.pod_number(Ipv4Addr::new(10, 87, 1, 2)), Some(258));
        for other in [[10, 87, 0, 1], [10, 87, 128, 1], [10, 88, 0, 2], [10, 86, 0, 2]] {
            assert_eq!(subnet.pod_number(Ipv4Addr::from(other)), None);
        }
        let other: Subnet = "172.20.0.0/16".parse().unwrap();
        assert_eq!(other.pod(254), Some(Ipv4Addr::new(172, 20, 0, 254)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("10.87.0.0", "write it as"),
            ("10.87.0.0/33", "/33 is not possible"),
            ("10.87.0.0/24", "use a /16"),
            ("10.87.4.0/16", "that is 10.87.0.0"),
            ("fe80::/16", "write it as"),
        ] {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
