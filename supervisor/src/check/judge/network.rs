//! What connects pods.

use wherry_runtime::probe::Trial;
use wherry_runtime::probe::network::Network;

use super::{Case, Context, Weight, part};
use crate::check::Row;

pub fn network(context: &Context, tried: &Trial<Network>) -> Vec<Row> {
    let row = |name, weight, pick: fn(&Network) -> &Trial<()>, found: &str, meaning, modules| {
        context.row(Case {
            name,
            weight,
            trial: &part(tried, |tried| pick(tried).clone()),
            found: found.into(),
            meaning,
            modules,
        })
    };
    let needed = Weight::Needed;
    vec![
        row(
            "network-settings",
            needed,
            |tried| &tried.settings,
            "forwarding can be switched on",
            "pods cannot reach anything: /proc/sys/net has to be writable",
            &[],
        ),
        row(
            "bridge",
            needed,
            |tried| &tried.bridge,
            "one was made",
            "pods are connected by a bridge: enable BRIDGE",
            &["bridge"],
        ),
        row(
            "veth",
            needed,
            |tried| &tried.veth,
            "a pod's link was made",
            "each pod has such a link: enable VETH",
            &["veth"],
        ),
        row(
            "nftables",
            needed,
            |tried| &tried.nftables,
            "masquerading, ct, reject",
            "pods have no network: enable NF_TABLES_IPV4, NFT_MASQ, NFT_CT, NFT_FIB_IPV4 and \
             NFT_REJECT_IPV4",
            &[
                "nf_tables",
                "nft_chain_nat",
                "nft_masq",
                "nft_ct",
                "nft_fib_ipv4",
                "nft_reject_ipv4",
            ],
        ),
        row(
            "nftables-nat",
            needed,
            |tried| &tried.nat,
            "an address and a port lead to a pod",
            "services and host ports lead nowhere: enable NFT_NAT and NFT_FIB_IPV4",
            &["nft_nat", "nft_chain_nat", "nft_fib_ipv4"],
        ),
        row(
            "nftables-balancing",
            needed,
            |tried| &tried.balancing,
            "numgen and maps",
            "a deployment of several pods cannot be published: enable NFT_NUMGEN",
            &["nft_numgen"],
        ),
        row(
            "conntrack",
            Weight::Wanted,
            |tried| &tried.conntrack,
            "connections are listed and forgotten",
            "UDP clients keep sending to pods that are gone: enable NF_CT_NETLINK",
            &["nf_conntrack_netlink"],
        ),
    ]
}
