//! IPv4 subnets, as numbers. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 subnet whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("`{0}` is not a subnet: write it like 10.87.0.0/16")]
    Syntax(String),
    #[error("a prefix of /{0} is not possible: an IPv4 prefix is /0 to /32")]
    Prefix(u8),
    #[error("{base}/{prefix} has host bits set: write {expected}")]
    HostBits { base: Ipv4Addr, prefix: u8, expected: Subnet },
}

impl Subnet {
    /// # Errors
    /// A prefix above 32, or a base with bits below the prefix.
    pub fn new(base: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if prefix > 32 {
            return Err(SubnetError::Prefix(prefix));
        }
        let expected = Self::masked(base, prefix);
        if expected.base != base {
            return Err(SubnetError::HostBits { base, prefix, expected });
        }
        Ok(expected)
    }

    /// The subnet of this prefix (at most 32) in which `address` is.
    pub(crate) fn masked(address: Ipv4Addr, prefix: u8) -> Self {
        Self { base: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    #[must_use]
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base.to_bits()
    }

    /// Host number `number`, if it is neither the subnet's own address (0) nor
    /// its broadcast address (the last).
    #[must_use]
    pub fn host(&self, number: u32) -> Option<Ipv4Addr> {
        let last = !mask(self.prefix);
        (1..last).contains(&number).then(|| Ipv4Addr::from_bits(self.base.to_bits() + number))
    }

    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !mask(self.prefix))
    }

    /// Lower and upper half; `None` of a single address.
    pub(crate) fn halves(&self) -> Option<(Self, Self)> {
        let prefix = self.prefix.checked_add(1).filter(|prefix| *prefix <= 32)?;
        let upper = self.base.to_bits() | (1 << (32 - u32::from(prefix)));
        Some((Self { base: self.base, prefix }, Self { base: Ipv4Addr::from_bits(upper), prefix }))
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let syntax = || SubnetError::Syntax(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let base = base.parse().map_err(|_| syntax())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix =
            if digits { prefix.parse().map_err(|_| syntax())? } else { return Err(syntax()) };
        Self::new(base, prefix)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_writes_and_refuses_the_rest() {
        for text in ["10.87.0.0/16", "0.0.0.0/0", "192.168.1.0/24", "10.0.0.1/32"] {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), text);
        }
        for text in
            ["", "10.87.0.0", "10.87.0.0/", "10.87.0.0/+16", "10.87/16", "a/16", "1.2.3.4/999"]
        {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Syntax(text.to_owned())));
        }
        assert_eq!("10.0.0.0/33".parse::<Subnet>(), Err(SubnetError::Prefix(33)));
        let error = "10.87.3.0/16".parse::<Subnet>().unwrap_err().to_string();
        assert_eq!(error, "10.87.3.0/16 has host bits set: write 10.87.0.0/16");
    }

    #[test]
    fn host_numbers_leave_out_both_ends() {
        let subnet: Subnet = "10.87.0.0/24".parse().unwrap();
        assert_eq!(subnet.host(0), None);
        assert_eq!(subnet.host(1), Some(Ipv4Addr::new(10, 87, 0, 1)));
        assert_eq!(subnet.host(254), Some(Ipv4Addr::new(10, 87, 0, 254)));
        assert_eq!(subnet.host(255), None);
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(10, 87, 0, 255));
    }

    #[test]
    fn halves_meet() {
        let (lower, upper) = "10.87.0.0/16".parse::<Subnet>().unwrap().halves().unwrap();
        assert_eq!(lower.to_string(), "10.87.0.0/17");
        assert_eq!(upper.to_string(), "10.87.128.0/17");
        assert!(lower.contains(Ipv4Addr::new(10, 87, 127, 255)));
        assert!(!lower.contains(upper.base()));
        assert_eq!("10.0.0.1/32".parse::<Subnet>().unwrap().halves(), None);
    }
}
