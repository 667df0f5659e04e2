//! The config's subnet: its lower half holds pods, its upper half services.
//! The reconciler speaks of host numbers, the launcher of addresses; this
//! joins them.
//!
//! Never here: interfaces and rules.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Bits of the network part: a larger subnet is of no use to 128 pods, a
/// smaller one has too few addresses for them.
pub const PREFIX_MIN: u8 = 16;
pub const PREFIX_MAX: u8 = 23;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("`{0}` is not a subnet: write it as 10.87.0.0/16")]
    Form(String),
    #[error("/{0} is not possible: use /{PREFIX_MIN} to /{PREFIX_MAX}")]
    Prefix(u8),
    #[error("{base} is not the first address of a /{prefix}: that is {first}")]
    Base { base: Ipv4Addr, prefix: u8, first: Ipv4Addr },
}

impl Subnet {
    #[must_use]
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The address of the pod with host number `number`; `None` when the
    /// pods' half has no such number. 0 is the network, 1 the bridge.
    #[must_use]
    pub fn pod(&self, number: u16) -> Option<Ipv4Addr> {
        let number = u32::from(number);
        let usable = number >= 2 && number < self.half() - 1;
        usable.then(|| Ipv4Addr::from(u32::from(self.base) + number))
    }

    /// The service address with host number `number` in the services' half.
    #[must_use]
    pub fn service(&self, number: u16) -> Option<Ipv4Addr> {
        let number = u32::from(number);
        let usable = number >= 1 && number < self.half() - 1;
        usable.then(|| Ipv4Addr::from(u32::from(self.base) + self.half() + number))
    }

    /// The host number of a pod's address.
    #[must_use]
    pub fn pod_number(&self, address: Ipv4Addr) -> Option<u16> {
        let number = u32::from(address).checked_sub(u32::from(self.base))?;
        let number = u16::try_from(number).ok()?;
        self.pod(number).map(|_| number)
    }

    fn half(&self) -> u32 {
        1 << (31 - u32::from(self.prefix))
    }
}

impl Default for Subnet {
    fn default() -> Self {
        Self { base: Ipv4Addr::new(10, 87, 0, 0), prefix: 16 }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let form = || SubnetError::Form(text.chars().take(40).collect());
        let (base, prefix) = text.split_once('/').ok_or_else(form)?;
        let base: Ipv4Addr = base.parse().map_err(|_| form())?;
        let prefix: u8 = prefix.parse().map_err(|_| form())?;
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix) {
            return Err(SubnetError::Prefix(prefix));
        }
        let first = Ipv4Addr::from(u32::from(base) & (u32::MAX << (32 - u32::from(prefix))));
        if first == base {
            Ok(Self { base, prefix })
        } else {
            Err(SubnetError::Base { base, prefix, first })
        }
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
        let small: Subnet = "192.168.6.0/23".parse().unwrap();
        assert_eq!(small.pod(254), Some(Ipv4Addr::new(192, 168, 6, 254)));
        assert_eq!(small.pod(255), None);
        assert_eq!(small.service(254), Some(Ipv4Addr::new(192, 168, 7, 254)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("10.87.0.0", "write it as"),
            ("10.87.0.0/33", "/33 is not possible"),
            ("10.87.0.0/24", "use /16 to /23"),
            ("10.87.4.0/16", "that is 10.87.0.0"),
            ("fe80::/16", "write it as"),
        ] {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
