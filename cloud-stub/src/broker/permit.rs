//! What a node may do at the broker: connect under its own name, and use the
//! topics below its own prefix that Wherry has.
//!
//! Pure: packets in, verdicts out.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, LastWill, Login, Packet, Subscribe};
use wherry_bundle::Name;
use wherry_bundle::limits::MQTT_PAYLOAD_BYTES_MAX;
use wherry_bundle::topic::Topic;

/// Client ids are kept with their sessions, and appear in logs.
const CLIENT_ID_BYTES_MAX: usize = 64;
/// More than there are topics for a node.
const FILTERS_MAX: usize = 16;

/// Who asks to be let in, before its password was checked.
#[derive(Debug)]
pub(super) struct Applicant {
    pub node: Name,
    pub password: String,
    pub client_id: String,
}

/// What happens to a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Forward,
    /// To be answered by a failure for each filter.
    RefuseSubscription,
    /// MQTT 3.1.1 has no way to refuse anything else than by closing.
    Close(&'static str),
}

/// Reads a CONNECT packet.
///
/// # Errors
/// The code to refuse it with, and why, for the log.
pub(super) fn applicant(connect: &Connect) -> Result<Applicant, (ConnectReturnCode, &'static str)> {
    if connect.protocol != rumqttc::mqttbytes::Protocol::V4 {
        return Err((ConnectReturnCode::RefusedProtocolVersion, "only MQTT 3.1.1 is spoken"));
    }
    let Some(Login { username, password }) = &connect.login else {
        return Err((ConnectReturnCode::BadUserNamePassword, "no user name"));
    };
    let Ok(node) = Name::new(username) else {
        return Err((ConnectReturnCode::BadUserNamePassword, "the user is no node's name"));
    };
    let id = connect.client_id.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    if id.is_empty() || id.len() > CLIENT_ID_BYTES_MAX || !id.iter().all(plain) {
        let why = "a client id has 1 to 64 letters, digits, `-`, `_` and `.`";
        return Err((ConnectReturnCode::BadClientId, why));
    }
    if let Some(LastWill { topic, qos, .. }) = &connect.last_will
        && (!is_own(topic, &node) || *qos == QoS::ExactlyOnce)
    {
        return Err((ConnectReturnCode::NotAuthorized, "the last will has a foreign topic"));
    }
    let client_id = connect.client_id.clone();
    Ok(Applicant { node, password: password.clone(), client_id })
}

/// Judges a packet of a connected node.
pub(super) fn judge(node: &Name, packet: &Packet) -> Verdict {
    match packet {
        Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
            Verdict::Close("quality of service 2")
        }
        Packet::Publish(publish) if publish.payload.len() > MQTT_PAYLOAD_BYTES_MAX => {
            Verdict::Close("a payload above the limit")
        }
        Packet::Publish(publish) if is_own(&publish.topic, node) => Verdict::Forward,
        Packet::Publish(_) => Verdict::Close("a message to a foreign topic"),
        Packet::Subscribe(subscribe) if is_own_subscription(subscribe, node) => Verdict::Forward,
        Packet::Subscribe(_) => Verdict::RefuseSubscription,
        Packet::PubAck(_) | Packet::Unsubscribe(_) | Packet::PingReq | Packet::Disconnect => {
            Verdict::Forward
        }
        Packet::Connect(_) => Verdict::Close("a second CONNECT"),
        Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => {
            Verdict::Close("quality of service 2")
        }
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            Verdict::Close("a packet that only a broker sends")
        }
    }
}

fn is_own(topic: &str, node: &Name) -> bool {
    Topic::parse(topic).is_some_and(|(owner, _)| owner == *node)
}

fn is_own_subscription(subscribe: &Subscribe, node: &Name) -> bool {
    subscribe.filters.len() <= FILTERS_MAX
        && subscribe.filters.iter().all(|f| is_own(&f.path, node) && f.qos != QoS::ExactlyOnce)
}

#[cfg(test)]
mod tests {
    use rumqttc::mqttbytes::v4::{PubRel, Publish};

    use super::*;

    fn name() -> Name {
        Name::new("gw-1").unwrap()
    }

    #[test]
    fn only_own_topics() {
        let publish = |topic: &str| Packet::Publish(Publish::new(topic, QoS::AtLeastOnce, "x"));
        let subscribe = |topic: &str| Packet::Subscribe(Subscribe::new(topic, QoS::AtLeastOnce));
        for topic in Topic::ALL {
            let topic = topic.of(&name());
            assert_eq!(judge(&name(), &publish(&topic)), Verdict::Forward, "{topic}");
            assert_eq!(judge(&name(), &subscribe(&topic)), Verdict::Forward, "{topic}");
        }
        for topic in [
            "wherry/v1/gw-2/status",
            "wherry/v1/gw-2/metrics",
            "wherry/v1/gw-1/other",
            "wherry/v1/+/status",
            "wherry/v1/gw-1/#",
            "#",
            "$SYS/broker",
            "$share/x/wherry/v1/gw-1/status",
            "",
        ] {
            assert_ne!(judge(&name(), &publish(topic)), Verdict::Forward, "{topic}");
            assert_eq!(judge(&name(), &subscribe(topic)), Verdict::RefuseSubscription, "{topic}");
        }
    }

    #[test]
    fn only_what_wherry_uses() {
        let mut twice = Publish::new("wherry/v1/gw-1/event", QoS::ExactlyOnce, "x");
        assert_eq!(
            judge(&name(), &Packet::Publish(twice.clone())),
            Verdict::Close("quality of service 2")
        );
        twice.qos = QoS::AtMostOnce;
        twice.payload = vec![0; MQTT_PAYLOAD_BYTES_MAX + 1].into();
        assert_ne!(judge(&name(), &Packet::Publish(twice)), Verdict::Forward);
        assert_ne!(judge(&name(), &Packet::PubRel(PubRel::new(1))), Verdict::Forward);
        assert_ne!(judge(&name(), &Packet::Connect(Connect::new("x"))), Verdict::Forward);
        assert_eq!(judge(&name(), &Packet::PingReq), Verdict::Forward);
    }

    #[test]
    fn who_may_ask() {
        let code = |change: fn(&mut Connect)| {
            let mut connect = Connect::new("wherry-gw-1");
            connect.set_login("gw-1", "secret");
            change(&mut connect);
            applicant(&connect).map(|a| a.node).map_err(|(code, _)| code)
        };
        let will = |topic: &str| Some(LastWill::new(topic, "x", QoS::AtLeastOnce, true));
        assert_eq!(code(|_| {}), Ok(name()));
        assert_eq!(code(|c| c.login = None), Err(ConnectReturnCode::BadUserNamePassword));
        let odd: fn(&mut Connect) = |c| {
            c.set_login("wherry/v1", "x");
        };
        assert_eq!(code(odd), Err(ConnectReturnCode::BadUserNamePassword));
        assert_eq!(code(|c| c.client_id = String::new()), Err(ConnectReturnCode::BadClientId));
        assert_eq!(code(|c| c.client_id = "a#".into()), Err(ConnectReturnCode::BadClientId));
        let v5: fn(&mut Connect) = |c| c.protocol = rumqttc::mqttbytes::Protocol::V5;
        assert_eq!(code(v5), Err(ConnectReturnCode::RefusedProtocolVersion));
        let mut connect = Connect::new("x");
        connect.set_login("gw-1", "secret");
        connect.last_will = will("wherry/v1/gw-2/status");
        let refused = applicant(&connect).unwrap_err();
        assert_eq!(refused.0, ConnectReturnCode::NotAuthorized);
        connect.last_will = will("wherry/v1/gw-1/status");
        assert!(applicant(&connect).is_ok());
    }
}
