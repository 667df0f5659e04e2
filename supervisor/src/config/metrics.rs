//! `[metrics]`: who sees the node's figures, and how often the cloud does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Three pods are 350 bytes, 500 with what carries them: 4 MB a month. Once a
/// minute would be five times that, and as many times a question to the launcher
/// for each pod, on a gateway that is else asleep.
const PUSH_SECONDS: u32 = 300;
/// More often is what a listener is for.
const PUSH_SECONDS_MIN: u32 = 5;
const PUSH_SECONDS_MAX: u32 = 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where a scraper finds them; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Between two samples for the cloud; `None`: it gets none.
    pub push: Option<Duration>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsTable {
    listen: Option<Listen>,
    push_seconds: Option<PushSeconds>,
}

struct Listen(SocketAddr);
struct PushSeconds(u32);

// Checked while the file is read, so that the error has its line.

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A port alone is on loopback: who wants more has to say so.
        let port = text.parse::<u16>().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let address = port.or_else(|_| text.parse::<SocketAddr>()).ok();
        address.filter(|address| address.port() > 0).map(Self).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no address and port, as 127.0.0.1:9273"))
        })
    }
}

impl<'de> Deserialize<'de> for PushSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = u32::deserialize(deserializer)?;
        if seconds == 0 || (PUSH_SECONDS_MIN..=PUSH_SECONDS_MAX).contains(&seconds) {
            return Ok(Self(seconds));
        }
        let what = format!("use {PUSH_SECONDS_MIN} to {PUSH_SECONDS_MAX}, or 0 for none");
        Err(D::Error::custom(what))
    }
}

impl MetricsTable {
    pub fn config(self) -> MetricsConfig {
        let seconds = self.push_seconds.map_or(PUSH_SECONDS, |PushSeconds(seconds)| seconds);
        MetricsConfig {
            listen: self.listen.map(|Listen(address)| address),
            push: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
        }
    }
}
