//! The configuration file of a node, ready to be copied to the gateway.
//!
//! Pure.

use wherry_bundle::Name;

/// The text of `wherry.toml`: what the node cannot know by itself. It holds
/// the node's password, and belongs to root with mode 0600.
#[must_use]
pub fn text(node: &Name, public_key_hex: &str, host: &str, port: u16, token: &str) -> String {
    // Names, keys and tokens are plain by their types; a host name is quoted.
    let host = toml::Value::String(host.to_owned());
    format!(
        "# /etc/wherry/wherry.toml of {node}: keep it readable for root only\n\
         node = \"{node}\"\n\
         trusted_keys = [\"{public_key_hex}\"]\n\
         \n\
         [broker]\n\
         host = {host}\n\
         port = {port}\n\
         password = \"{token}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back() {
        let text = text(&"gw-1".parse().unwrap(), &"ab".repeat(32), "a\"b", 1883, "secret");
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["node"].as_str(), Some("gw-1"));
        assert_eq!(table["trusted_keys"][0].as_str(), Some("ab".repeat(32).as_str()));
        assert_eq!(table["broker"]["host"].as_str(), Some("a\"b"));
        assert_eq!(table["broker"]["port"].as_integer(), Some(1883));
        assert_eq!(table["broker"]["password"].as_str(), Some("secret"));
    }
}
