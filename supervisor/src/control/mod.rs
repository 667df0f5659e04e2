//! The node's local control socket, `RUN/wherry.sock`: how the command line
//! asks the supervisor.
//!
//! A Unix stream for root only. A client sends one [`Request`], gets one or
//! more [`Response`]s, and the connection ends. Each is one frame
//! ([`wherry_bundle::frame`]) of one schema byte and postcard.
//! Never here: anything from the network.

mod apply;
pub mod client;
pub mod protocol;
pub mod server;
mod stream;

pub use client::{Client, ClientError};
pub use protocol::{
    Applied, CloudLink, ContainerDescription, Exec, LocalStatus, MountDescription, PodDescription,
    PodPressure, PodUsage, Request, Response, VolumeStatus,
};
pub(crate) use server::ANSWER_TIMEOUT;
pub use server::{Ask, Server};
pub(crate) use stream::{Frames, StreamError};
