//! `mqtt://USER:PASSWORD@HOST:PORT`.
//!
//! Pure.

use crate::mqtt::BrokerLogin;

/// As the standard has it.
const PORT: u16 = 1883;
const SCHEME: &str = "mqtt://";
const CLIENT_ID: &str = "wherry-cloud";

/// Reads the address of a broker. Special characters of user and password
/// are written as `%XX`.
pub(super) fn parse(text: &str) -> Result<BrokerLogin, String> {
    let bad = |why: &str| format!("{why}: write mqtt://USER:PASSWORD@HOST:PORT");
    let rest = text.strip_prefix(SCHEME).ok_or_else(|| bad("it does not start with mqtt://"))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let (user, password) = match login {
        Some(login) => login.split_once(':').unwrap_or((login, "")),
        None => ("", ""),
    };
    let (host, port) = host_and_port(place, PORT).map_err(|why| bad(&why))?;
    let decoded = |text: &str| percent_decoded(text).ok_or_else(|| bad("a broken %XX"));
    Ok(BrokerLogin {
        host,
        port,
        user: decoded(user)?,
        password: decoded(password)?,
        client_id: CLIENT_ID.into(),
    })
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`; the brackets go.
pub(super) fn host_and_port(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("a bracket is not closed")?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:_%".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(format!("`{host}` is no host"));
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| format!("`{port}` is no port"))?,
        None if port.is_empty() => default,
        None => return Err(format!("`{port}` is no port")),
    };
    Ok((host.to_owned(), port))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_brokers() {
        let read = |text: &str| parse(text).map(|b| (b.user, b.password, b.host, b.port));
        let ok = |user: &str, password: &str, host: &str, port| {
            Ok((user.into(), password.into(), host.into(), port))
        };
        assert_eq!(read("mqtt://broker.example"), ok("", "", "broker.example", 1883));
        assert_eq!(read("mqtt://u:p@10.0.0.1:1884/"), ok("u", "p", "10.0.0.1", 1884));
        assert_eq!(read("mqtt://u@h"), ok("u", "", "h", 1883));
        assert_eq!(read("mqtt://u:a%40b%3a@[::1]:1885"), ok("u", "a@b:", "::1", 1885));
        for bad in [
            "broker:1883",
            "http://broker",
            "mqtt://",
            "mqtt://host:port",
            "mqtt://host:99999",
            "mqtt://[::1",
            "mqtt://u:%4@h",
            "mqtt://u:%+1@h",
            "mqtt://a/b",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
