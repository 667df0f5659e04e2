//! The embedded MQTT broker: rumqttd, behind a gate of our own.
//!
//! rumqttd knows who may connect, but not who may use which topic, gives a
//! refused client no reason, takes over sessions in a way that can publish the
//! new connection's last will, and cannot be stopped. So it listens on a
//! loopback port that only the gate has the password of; the gate checks
//! every packet of a node ([`permit`]), ends one session before it lets the
//! next one with the same name in, and closes everything when the cloud
//! stops.
//!
//! What remains of rumqttd: sessions and retained messages are in memory only
//! (the cloud publishes what is desired again when it starts, nodes their
//! status when they reconnect), it keeps up to about 1 MiB of recent messages
//! for each node, and a client that acknowledges out of order is cut off. A
//! large fleet wants an external broker.

mod gate;
mod permit;
mod relay;
mod rumqttd;

use std::io;
use std::net::SocketAddr;

pub use gate::{Credentials, Gate};
pub use rumqttd::Rumqttd;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("cannot listen for MQTT on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the embedded broker did not start: {0}")]
    Start(String),
}

/// Broker and gate, running.
#[derive(Debug)]
pub struct Embedded {
    gate: Gate,
    rumqttd: Rumqttd,
}

impl Embedded {
    /// Starts the broker and opens its port; no node gets through before
    /// [`Embedded::open`].
    ///
    /// # Errors
    /// A port that cannot be had.
    pub async fn start(listen: SocketAddr, credentials: Credentials) -> Result<Self, BrokerError> {
        let rumqttd = Rumqttd::start().await?;
        let gate = Gate::start(listen, rumqttd.address(), rumqttd.secret().to_owned(), credentials)
            .await?;
        Ok(Self { gate, rumqttd })
    }

    /// Where nodes connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.gate.address()
    }

    /// Where the cloud itself connects to, past the gate, and its password
    /// there.
    #[must_use]
    pub fn inner(&self) -> (SocketAddr, &str) {
        (self.rumqttd.address(), self.rumqttd.secret())
    }

    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Ends every connection, then the broker: last wills are not published,
    /// since nobody is left to hear them.
    pub async fn stop(self) {
        self.gate.stop().await;
        self.rumqttd.stop();
    }
}
