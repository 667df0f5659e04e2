//! Chains as nfnetlink bytes. Pure.
//!
//! Formats and numbers: `linux/netfilter/nf_tables.h`; set and rule user data,
//! by which nft(8) shows comments and maps as they were meant: libnftnl's
//! `udata.h`.

use std::net::Ipv4Addr;

use crate::message::Message;
use crate::netlink::Batch;
use crate::ruleset::{Base, Chain, Is, Part, Rule};
use crate::service::Protocol;
use crate::subnet::Subnet;

// Attributes that libc has no name for.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_DESC_SIZE: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_LIST_SET_ID: u16 = 4;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_JUMP: i32 = -3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
/// Types by which nft(8) shows a map (its `enum datatypes`).
const TYPE_INTEGER: u32 = 4;
const TYPE_IPV4_ADDRESS: u32 = 7;
/// Bits of a connection (`nf_conntrack_common.h`).
const STATE_NEW: u32 = 1 << 3;
const STATUS_DST_NAT: u32 = 1 << 5;
const NAT_PORT_SPECIFIED: u32 = 2;
/// Its name while a batch runs; the kernel numbers it.
const MAP_NAME: &str = "__map%d";

const ADDRESS: i32 = libc::NFT_REG_1;
const PORT: i32 = libc::NFT_REG_2;
const SOURCE_AT: u32 = 12;
const DESTINATION_AT: u32 = 16;

/// A batch that replaces the table `table`, or makes it.
pub fn replace(table: &str, chains: &[Chain]) -> Batch {
    let mut steps = without(table);
    steps.extend(create(table, 0));
    steps.extend(fill(table, chains));
    batch(steps)
}

/// A batch that makes the table, and fails with `EEXIST` if it is there.
pub fn make_new(table: &str, chains: &[Chain]) -> Batch {
    let mut steps: Vec<_> = create(table, libc::NLM_F_EXCL).into();
    steps.extend(fill(table, chains));
    batch(steps)
}

/// A batch that removes the table, if it is there.
pub fn remove(table: &str) -> Batch {
    batch(without(table))
}

type Step = (String, Message);

fn create(table: &str, flags: i32) -> [Step; 1] {
    let message = message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE | flags);
    [(format!("make nftables table `{table}`"), message.text(NFTA_TABLE_NAME, table))]
}

/// Removing a table that is not there would fail, making one that is there
/// does not.
fn without(table: &str) -> Vec<Step> {
    let message = message(libc::NFT_MSG_DELTABLE, 0).text(NFTA_TABLE_NAME, table);
    let [create] = create(table, 0);
    vec![create, (format!("remove nftables table `{table}`"), message)]
}

fn fill(table: &str, chains: &[Chain]) -> Vec<Step> {
    let mut steps: Vec<Step> = chains.iter().map(|chain| new_chain(table, chain)).collect();
    let mut map_id = 0;
    for chain in chains {
        for rule in &chain.rules {
            for part in &rule.parts {
                if let Part::Dnat(pods, _) = part
                    && pods.len() > 1
                {
                    map_id += 1;
                    steps.extend(new_map(table, map_id, pods));
                }
            }
            steps.push(new_rule(table, chain.name, rule, map_id));
        }
    }
    steps
}

fn new_chain(table: &str, chain: &Chain) -> Step {
    let mut message = message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE)
        .text(NFTA_CHAIN_TABLE, table)
        .text(NFTA_CHAIN_NAME, chain.name);
    if let Some(Base { kind, hook, priority }) = chain.base {
        message = message.text(NFTA_CHAIN_TYPE, kind).nested(NFTA_CHAIN_HOOK, |nested| {
            nested.be32(NFTA_HOOK_HOOKNUM, hook).be32(NFTA_HOOK_PRIORITY, priority)
        });
    }
    (format!("make nftables chain `{table} {}`", chain.name), message)
}

/// An anonymous map from 0, 1, 2… (in the host's byte order, as `numgen`
/// makes them) to addresses. It goes with its rule.
fn new_map(table: &str, id: u32, pods: &[Ipv4Addr]) -> [Step; 2] {
    let flags = libc::NFT_SET_ANONYMOUS | libc::NFT_SET_CONSTANT | libc::NFT_SET_MAP;
    let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    // Tag 0: the key's byte order, 1 for the host's; tag 1: the data's, 2 for
    // big-endian.
    let order = |tag: u8, order: u32| [&[tag, 4][..], &order.to_ne_bytes()].concat();
    let set = message(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE)
        .text(NFTA_SET_TABLE, table)
        .text(NFTA_SET_NAME, MAP_NAME)
        .be32(NFTA_SET_FLAGS, flags)
        .be32(NFTA_SET_KEY_TYPE, TYPE_INTEGER)
        .be32(NFTA_SET_KEY_LEN, 4)
        .be32(NFTA_SET_DATA_TYPE, TYPE_IPV4_ADDRESS)
        .be32(NFTA_SET_DATA_LEN, 4)
        .be32(NFTA_SET_ID, id)
        .nested(NFTA_SET_DESC, |desc| desc.be32(NFTA_SET_DESC_SIZE, count))
        .attribute(NFTA_SET_USERDATA, &[order(0, 1), order(1, 2)].concat());
    let elements = message(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE)
        .text(NFTA_SET_ELEM_LIST_TABLE, table)
        .text(NFTA_SET_ELEM_LIST_SET, MAP_NAME)
        .be32(NFTA_SET_ELEM_LIST_SET_ID, id)
        .nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            (0..count).zip(pods).fold(list, |list, (index, pod)| {
                list.nested(NFTA_LIST_ELEM, |element| {
                    value(element, NFTA_SET_ELEM_KEY, &index.to_ne_bytes())
                        .nested(NFTA_SET_ELEM_DATA, |data| data.address(NFTA_DATA_VALUE, *pod))
                })
            })
        });
    let action = format!("make an nftables map of {count} pods");
    [(action.clone(), set), (action, elements)]
}

fn new_rule(table: &str, chain: &str, rule: &Rule, map_id: u32) -> Step {
    let mut message = message(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND)
        .text(NFTA_RULE_TABLE, table)
        .text(NFTA_RULE_CHAIN, chain)
        .nested(NFTA_RULE_EXPRESSIONS, |list| {
            rule.parts.iter().fold(list, |list, part| expressions(list, part, map_id))
        });
    if !rule.comment.is_empty() {
        // Tag 0 is a comment, with its NUL.
        let text = [rule.comment.as_bytes(), b"\0"].concat();
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        message = message.attribute(NFTA_RULE_USERDATA, &[&[0, length], &text[..]].concat());
    }
    (format!("add to nftables chain `{table} {chain}` the rule {:?}", rule.parts), message)
}

/// Appends the kernel's expressions for one part.
fn expressions(list: Message, part: &Part, map_id: u32) -> Message {
    match part {
        Part::In(is, name) => interface(list, libc::NFT_META_IIFNAME, *is, name),
        Part::Out(is, name) => interface(list, libc::NFT_META_OIFNAME, *is, name),
        Part::From(is, subnet) => address(list, SOURCE_AT, *is, *subnet),
        Part::To(is, subnet) => address(list, DESTINATION_AT, *is, *subnet),
        Part::ToThisHost => {
            // NFTA_FIB_DREG, _RESULT, _FLAGS; the type is in the host's order.
            let list = expression(list, "fib", |data| {
                data.be32(1, ADDRESS).be32(2, NFT_FIB_RESULT_ADDRTYPE).be32(3, NFTA_FIB_F_DADDR)
            });
            compare(list, Is::Equal, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
        }
        Part::Over(protocol) => {
            let number = match protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            };
            compare(meta(list, libc::NFT_META_L4PROTO), Is::Equal, &[number])
        }
        Part::ToPort(port) => {
            let list = payload(list, libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
            compare(list, Is::Equal, &port.to_be_bytes())
        }
        Part::FirstOfConnection => connection(list, libc::NFT_CT_STATE, STATE_NEW, Is::Not),
        Part::Translated(true) => connection(list, libc::NFT_CT_STATUS, STATUS_DST_NAT, Is::Not),
        Part::Translated(false) => connection(list, libc::NFT_CT_STATUS, STATUS_DST_NAT, Is::Equal),
        Part::Dnat(pods, port) => dnat(list, pods, *port, map_id),
        Part::Masquerade => expression(list, "masq", |data| data),
        Part::Drop => verdict(list, libc::NF_DROP, None),
        Part::Jump(chain) => verdict(list, NFT_JUMP, Some(chain)),
        Part::Reset => reject(list, libc::NFT_REJECT_TCP_RST, 0),
        // 3 is `ICMP_PORT_UNREACH`.
        Part::Unreachable => reject(list, libc::NFT_REJECT_ICMP_UNREACH, 3),
    }
}

fn dnat(list: Message, pods: &[Ipv4Addr], port: Option<u16>, map_id: u32) -> Message {
    let list = match pods {
        [pod] => immediate(list, ADDRESS, &pod.octets()),
        pods => {
            let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
            // NFTA_NG_DREG, _MODULUS, _TYPE, _OFFSET
            let list = expression(list, "numgen", |data| {
                data.be32(1, ADDRESS).be32(2, count).be32(3, libc::NFT_NG_INCREMENTAL).be32(4, 0)
            });
            // NFTA_LOOKUP_SET, _SREG, _DREG, _SET_ID
            expression(list, "lookup", |data| {
                data.text(1, MAP_NAME).be32(2, ADDRESS).be32(3, ADDRESS).be32(4, map_id)
            })
        }
    };
    let list = match port {
        Some(port) => immediate(list, PORT, &port.to_be_bytes()),
        None => list,
    };
    // NFTA_NAT_TYPE, _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN, _FLAGS
    expression(list, "nat", |data| {
        let data = data.be32(1, libc::NFT_NAT_DNAT).be32(2, libc::NFPROTO_IPV4).be32(3, ADDRESS);
        if port.is_some() { data.be32(5, PORT).be32(7, NAT_PORT_SPECIFIED) } else { data }
    })
}

/// Names are compared with all 16 bytes of `IFNAMSIZ`.
fn interface(list: Message, key: i32, is: Is, name: &str) -> Message {
    let mut padded = [0; libc::IFNAMSIZ];
    let length = name.len().min(padded.len());
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    compare(meta(list, key), is, &padded)
}

fn address(list: Message, at: u32, is: Is, subnet: Subnet) -> Message {
    let list = payload(list, libc::NFT_PAYLOAD_NETWORK_HEADER, at, 4);
    let list = if subnet.prefix() < 32 { mask(list, &subnet.mask().octets()) } else { list };
    compare(list, is, &subnet.base().octets())
}

/// `bits` of a property of the connection, compared with none of them set.
fn connection(list: Message, key: i32, bits: u32, is: Is) -> Message {
    // NFTA_CT_DREG, _KEY
    let list = expression(list, "ct", |data| data.be32(1, ADDRESS).be32(2, key));
    compare(mask(list, &bits.to_ne_bytes()), is, &[0; 4])
}

fn meta(list: Message, key: i32) -> Message {
    // NFTA_META_DREG, _KEY
    expression(list, "meta", |data| data.be32(1, ADDRESS).be32(2, key))
}

fn payload(list: Message, base: i32, offset: u32, bytes: u32) -> Message {
    // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
    expression(list, "payload", |data| {
        data.be32(1, ADDRESS).be32(2, base).be32(3, offset).be32(4, bytes)
    })
}

fn mask(list: Message, mask: &[u8; 4]) -> Message {
    // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR
    expression(list, "bitwise", |data| {
        let data = data.be32(1, ADDRESS).be32(2, ADDRESS).be32(3, 4);
        value(value(data, 4, mask), 5, &[0; 4])
    })
}

fn compare(list: Message, is: Is, with: &[u8]) -> Message {
    let operator = match is {
        Is::Equal => libc::NFT_CMP_EQ,
        Is::Not => libc::NFT_CMP_NEQ,
    };
    // NFTA_CMP_SREG, _OP, _DATA
    expression(list, "cmp", |data| value(data.be32(1, ADDRESS).be32(2, operator), 3, with))
}

fn immediate(list: Message, register: i32, bytes: &[u8]) -> Message {
    // NFTA_IMMEDIATE_DREG, _DATA
    expression(list, "immediate", |data| value(data.be32(1, register), 2, bytes))
}

fn verdict(list: Message, code: i32, chain: Option<&str>) -> Message {
    expression(list, "immediate", |data| {
        data.be32(1, libc::NFT_REG_VERDICT).nested(2, |data| {
            data.nested(NFTA_DATA_VERDICT, |verdict| {
                let verdict = verdict.be32(NFTA_VERDICT_CODE, code);
                match chain {
                    Some(chain) => verdict.text(NFTA_VERDICT_CHAIN, chain),
                    None => verdict,
                }
            })
        })
    })
}

fn reject(list: Message, kind: i32, code: u8) -> Message {
    // NFTA_REJECT_TYPE, _ICMP_CODE
    expression(list, "reject", |data| data.be32(1, kind).attribute(2, &[code]))
}

fn expression(list: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    list.nested(NFTA_LIST_ELEM, |element| {
        element.text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, fill)
    })
}

fn value(message: Message, kind: u16, bytes: &[u8]) -> Message {
    message.nested(kind, |data| data.attribute(NFTA_DATA_VALUE, bytes))
}

fn message(kind: i32, flags: i32) -> Message {
    let flags = libc::NLM_F_REQUEST | flags;
    Message::nfnetlink(libc::NFNL_SUBSYS_NFTABLES, kind, flags, libc::NFPROTO_IPV4, 0)
}

fn batch(steps: Vec<Step>) -> Batch {
    let mark = |kind| {
        let subsystem = libc::NFNL_SUBSYS_NFTABLES;
        Message::nfnetlink(0, kind, libc::NLM_F_REQUEST, libc::NFPROTO_UNSPEC, subsystem)
    };
    Batch { begin: mark(libc::NFNL_MSG_BATCH_BEGIN), steps, end: mark(libc::NFNL_MSG_BATCH_END) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared once with what nft(8) sends for `add rule ip t out jump s
    /// comment "x"`; the rest of the encoder is judged by what nft reads back
    /// (`tests/table.nft`).
    #[test]
    #[cfg(target_endian = "little")]
    fn golden_rule() {
        let rule = Rule { comment: "x".to_owned(), parts: vec![Part::Jump("s")] };
        let (action, message) = new_rule("t", "out", &rule, 0);
        assert!(action.starts_with("add to nftables chain `t out` the rule"), "{action}");
        #[rustfmt::skip]
        let expected = [
            104, 0, 0, 0, 6, 10, 1, 12, 5, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr: NEWRULE, CREATE | APPEND
            2, 0, 0, 0, // nfgenmsg: IPv4
            6, 0, 1, 0, b't', 0, 0, 0, // table
            8, 0, 2, 0, b'o', b'u', b't', 0, // chain
            60, 0, 4, 0x80, 56, 0, 1, 0x80, // expressions, one
            14, 0, 1, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0,
            36, 0, 2, 0x80,
            8, 0, 1, 0, 0, 0, 0, 0, // into the verdict register
            24, 0, 2, 0x80, 20, 0, 2, 0x80,
            8, 0, 1, 0, 255, 255, 255, 253, // NFT_JUMP
            6, 0, 2, 0, b's', 0, 0, 0, // to chain
            8, 0, 7, 0, 0, 2, b'x', 0, // comment
        ];
        assert_eq!(message.finish(5), expected);
    }
}
