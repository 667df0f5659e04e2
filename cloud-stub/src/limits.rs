//! Every bound of the server, each with its unit and its reason. What cloud
//! and node share is in `wherry_bundle::limits`.

use std::time::Duration;

/// An uploaded image archive: the image code's own bound on what comes out of
/// it is the same.
pub const UPLOAD_BYTES_MAX: u64 = 16 << 30;
/// A version package as JSON: templates and base64 configuration files that
/// fit into one envelope, with room for the templates' comments.
pub const PACKAGE_BYTES_MAX: usize = 4 << 20;
/// A node's report: its status, and all that its outbox has room for.
pub const REPORT_BYTES_MAX: usize = 4 << 20;
/// Pieces of an exported file that wait for its reader, a chunk each.
pub const EXPORT_QUEUE_MAX: usize = 4;
/// Any other request.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Labels of one node.
pub const LABELS_MAX: usize = 32;
/// Bytes of a label's value, as in Kubernetes.
pub const LABEL_VALUE_BYTES_MAX: usize = 63;
/// Nodes that one rollout compiles bundles for, all in one transaction.
pub const ROLLOUT_NODES_MAX: usize = 10_000;
/// Events that are kept of one node; older ones go.
pub const EVENTS_KEPT_MAX: u64 = 10_000;
/// Events that one request may ask for.
pub const EVENTS_TAIL_MAX: u32 = 10_000;
/// Rollouts that one request lists, newest first.
pub const ROLLOUTS_LISTED_MAX: u32 = 1_000;

/// Chunk requests of all nodes that wait for the disk. One that finds no room
/// is dropped, and the node asks again.
pub const CHUNK_QUEUE_MAX: usize = 4_096;
/// Event messages that wait for the database. One that finds no room is
/// dropped, and the node sends it again.
pub const EVENT_QUEUE_MAX: usize = 256;
/// Messages to the broker that wait in the client's queue; the largest are
/// chunks of 128 KiB.
pub const OUTGOING_QUEUE_MAX: usize = 16;
/// A broker that takes longer for one message counts as away.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Log streams and other questions to nodes that are open at once, over all of
/// them.
pub const LOG_STREAMS_MAX: usize = 64;
/// Log messages of one stream that wait for its reader; more are dropped, and
/// the reader is told so.
pub const LOG_QUEUE_MAX: usize = 64;
/// A node on a thin uplink answers within this, or counts as silent.
pub const LOG_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A command's time and its output's way over a thin uplink: 128 KiB at
/// 25 kbit/s.
pub const EXEC_ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// Connections to the embedded broker.
pub const BROKER_CONNECTIONS_MAX: usize = 4_096;
/// From the connection to its CONNECT packet.
pub const BROKER_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Everything in an MQTT packet but the payload.
pub const PACKET_OVERHEAD_BYTES: usize = 1024;

/// Requests that are under way may end within this when the server stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
