//! Two connections made one: packets of the client are judged, bytes of the
//! broker pass as they are.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error;
use rumqttc::mqttbytes::v4::{Packet, SubAck, SubscribeReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;
use wherry_bundle::Name;
use wherry_bundle::limits::MQTT_PAYLOAD_BYTES_MAX;

use super::permit::{self, Verdict};
use crate::limits::PACKET_OVERHEAD_BYTES;

const PACKET_BYTES_MAX: usize = MQTT_PAYLOAD_BYTES_MAX + PACKET_OVERHEAD_BYTES;
/// Read from either side at a time.
const READ_BYTES: usize = 16 * 1024;
/// rumqttd answers a CONNECT, and closes after its client did, within this.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
/// On top of one and a half keep-alives, which are rumqttd's to enforce: only
/// when it cannot is it done here.
const SILENCE_EXTRA: Duration = Duration::from_secs(5);

/// Packets from a stream.
#[derive(Debug)]
pub(super) struct PacketReader {
    stream: TcpStream,
    buffer: BytesMut,
}

impl PacketReader {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::new() })
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The next packet. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Packet, String> {
        next_packet(&mut self.stream, &mut self.buffer).await
    }
}

/// Writes one packet.
pub(super) async fn send(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    packet: &Packet,
) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, PACKET_BYTES_MAX).map_err(io::Error::other)?;
    stream.write_all(&bytes).await
}

/// Passes packets until one side ends or `ended` says so; why, for the log.
///
/// Returns only when rumqttd is done with the connection: its last will, if
/// there is to be one, is published then.
pub(super) async fn run(
    client: PacketReader,
    broker: TcpStream,
    node: &Name,
    keep_alive: u16,
    mut ended: watch::Receiver<bool>,
) -> String {
    let PacketReader { stream, buffer } = client;
    let (client_read, mut client_write) = stream.into_split();
    let (mut broker_read, mut broker_write) = broker.into_split();
    let mut down = BytesMut::new();
    // Before anything of the client counts, rumqttd has to have answered.
    let first = match timeout(BROKER_TIMEOUT, next_packet(&mut broker_read, &mut down)).await {
        Ok(Ok(answer)) => send(&mut client_write, &answer).await.map_err(|e| e.to_string()),
        Ok(Err(error)) => Err(format!("rumqttd: {error}")),
        Err(_) => Err("rumqttd does not answer".into()),
    };
    let why = match first {
        Err(why) => why,
        Ok(()) => {
            // What the gate itself answers must not come in the middle of
            // what the broker sends: one task writes to the client.
            let (answers, mut answered) = tokio::sync::mpsc::channel::<Packet>(1);
            let up = uplink(client_read, buffer, &mut broker_write, node, keep_alive, answers);
            let down = downlink(&mut broker_read, down, &mut client_write, &mut answered);
            tokio::select! {
                why = up => why,
                why = down => why,
                _ = ended.wait_for(|ended| *ended) => "ended by the cloud".into(),
            }
        }
    };
    drop(client_write);
    // rumqttd sees the end, publishes the last will, and closes its side.
    let _ = broker_write.shutdown().await;
    let drained = timeout(BROKER_TIMEOUT, async {
        let mut rest = BytesMut::with_capacity(READ_BYTES);
        while matches!(broker_read.read_buf(&mut rest).await, Ok(1..)) {
            rest.clear();
        }
    });
    if drained.await.is_err() {
        log::warn!("broker: rumqttd did not close the connection of {node}");
    }
    why
}

async fn uplink(
    mut client: OwnedReadHalf,
    mut buffer: BytesMut,
    broker: &mut OwnedWriteHalf,
    node: &Name,
    keep_alive: u16,
    answers: tokio::sync::mpsc::Sender<Packet>,
) -> String {
    let patience = match keep_alive {
        0 => Duration::MAX,
        seconds => Duration::from_secs(seconds.into()).mul_f32(1.5) + SILENCE_EXTRA,
    };
    loop {
        let packet = match timeout(patience, next_packet(&mut client, &mut buffer)).await {
            Ok(Ok(packet)) => packet,
            Ok(Err(why)) => return why,
            Err(_) => return "no sign of life".into(),
        };
        match (permit::judge(node, &packet), &packet) {
            (Verdict::Forward, packet) => {
                if let Err(error) = send(broker, packet).await {
                    return format!("rumqttd closed the connection: {error}");
                }
            }
            (Verdict::RefuseSubscription, Packet::Subscribe(subscribe)) => {
                let filters: Vec<&str> =
                    subscribe.filters.iter().map(|f| f.path.as_str()).collect();
                log::warn!("broker: {node} may not subscribe to {}", filters.join(", "));
                let codes = subscribe.filters.iter().map(|_| SubscribeReasonCode::Failure);
                let answer = Packet::SubAck(SubAck::new(subscribe.pkid, codes.collect()));
                if answers.send(answer).await.is_err() {
                    return "closed".into();
                }
            }
            (Verdict::RefuseSubscription, _) => return "not a subscription".into(),
            (Verdict::Close(why), _) => return format!("cut off: {why}"),
        }
    }
}

async fn downlink(
    broker: &mut OwnedReadHalf,
    mut buffer: BytesMut,
    client: &mut OwnedWriteHalf,
    answers: &mut tokio::sync::mpsc::Receiver<Packet>,
) -> String {
    // Whole packets only, so that an answer of the gate can come between two.
    loop {
        let packet = tokio::select! {
            packet = next_packet(broker, &mut buffer) => match packet {
                Ok(packet) => packet,
                Err(why) => return format!("rumqttd closed the connection: {why}"),
            },
            Some(answer) = answers.recv() => answer,
        };
        if let Err(error) = send(client, &packet).await {
            return error.to_string();
        }
    }
}

/// Reads until `buffer` holds a packet, and takes it. Dropping the future
/// loses nothing.
async fn next_packet(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Packet, String> {
    loop {
        match Packet::read(buffer, PACKET_BYTES_MAX) {
            Ok(packet) => return Ok(packet),
            Err(Error::InsufficientBytes(_)) => {}
            Err(error) => return Err(format!("not MQTT 3.1.1: {error}")),
        }
        buffer.reserve(READ_BYTES);
        match stream.read_buf(buffer).await {
            Ok(0) => return Err("closed".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
