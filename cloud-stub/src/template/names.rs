//! `hostAliases`, `dnsPolicy` and `dnsConfig`: how a pod finds what is not on
//! its node.

use std::net::IpAddr;

use wherry_bundle::limits::{HOST_NAMES_MAX, NAMESERVERS_MAX};
use wherry_bundle::model::{Dns, HostAlias, is_host_name, is_resolver_option};

use super::place::{Object, Place};
use super::shapes;

/// Of a pod's `spec`.
pub(super) fn host_aliases(spec: &Object<'_>) -> Option<Vec<HostAlias>> {
    let places = some(spec, "hostAliases", HOST_NAMES_MAX);
    let aliases: Vec<_> = places.iter().map(host_alias).collect();
    aliases.into_iter().collect()
}

fn host_alias(place: &Place<'_>) -> Option<HostAlias> {
    let object = place.object(&shapes::HOST_ALIAS)?;
    let address = object.require("ip").and_then(|place| address(&place));
    let names = some(&object, "hostnames", HOST_NAMES_MAX);
    if names.is_empty() {
        place.problem("`hostnames` is missing: an address needs a name");
    }
    let names: Vec<_> = names.iter().map(host_name).collect();
    Some(HostAlias { address: address?, names: names.into_iter().collect::<Option<_>>()? })
}

/// Of a pod's `spec`. In a cluster, `ClusterFirst` asks the cluster's name
/// server; a node's pods are in each other's hosts files.
pub(super) fn dns(spec: &Object<'_>) -> Option<Dns> {
    let alone = spec.get("dnsPolicy").map_or(Some(false), |place| match place.text()?.as_str() {
        "ClusterFirst" | "ClusterFirstWithHostNet" | "Default" => Some(false),
        "None" => Some(true),
        _ => {
            place.problem("must be ClusterFirst, ClusterFirstWithHostNet, Default or None");
            None
        }
    });
    let Some(place) = spec.get("dnsConfig") else {
        if alone == Some(true) {
            spec.place().problem("dnsPolicy: None needs `dnsConfig` with a name server");
        }
        return Some(Dns { alone: alone?, ..Dns::default() });
    };
    let object = place.object(&shapes::DNS_CONFIG)?;
    let nameservers: Vec<_> =
        some(&object, "nameservers", NAMESERVERS_MAX).iter().map(address).collect();
    let searches: Vec<_> =
        some(&object, "searches", HOST_NAMES_MAX).iter().map(host_name).collect();
    let options: Vec<_> = some(&object, "options", HOST_NAMES_MAX).iter().map(option).collect();
    if alone == Some(true) && nameservers.is_empty() {
        place.problem("dnsPolicy: None needs a name server here");
    }
    Some(Dns {
        alone: alone?,
        nameservers: nameservers.into_iter().collect::<Option<_>>()?,
        searches: searches.into_iter().collect::<Option<_>>()?,
        options: options.into_iter().collect::<Option<_>>()?,
    })
}

fn option(place: &Place<'_>) -> Option<String> {
    let object = place.object(&shapes::DNS_OPTION)?;
    let name = object.require("name")?.text()?;
    let option = match object.get("value") {
        Some(value) => format!("{name}:{}", value.scalar_text()?),
        None => name,
    };
    if !is_resolver_option(&option) {
        place.problem("must be an option of resolv.conf, such as name: ndots, value: \"2\"");
        return None;
    }
    Some(option)
}

fn address(place: &Place<'_>) -> Option<IpAddr> {
    let address = place.text()?.parse().ok();
    if address.is_none() {
        place.problem("must be an IP address");
    }
    address
}

fn host_name(place: &Place<'_>) -> Option<String> {
    let name = place.text()?;
    // A search domain may end with the root's dot.
    let plain = name.trim_end_matches('.').to_owned();
    if !is_host_name(&plain) {
        place.problem(format!("`{name}` is not a host name"));
        return None;
    }
    Some(plain)
}

fn some<'a>(object: &Object<'a>, field: &str, max: usize) -> Vec<Place<'a>> {
    let places: Vec<_> = object.get(field).iter().flat_map(Place::items).collect();
    if places.len() > max
        && let Some(place) = object.get(field)
    {
        place.problem(format!("{} of them, where at most {max} are allowed", places.len()));
    }
    places
}
