//! What is made, found and removed on the host. Needs root, and `ip` and `nft`
//! to look at the result.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::fs;
use std::net::TcpListener;

use wherry_netns::{Network, NetworkConfig, NetworkError};
use world::{BRIDGE, NODE, Namespace, World};

/// The rules as nft(8), which shares no code with us, reads them back.
#[test]
fn the_table_is_what_nft_understands_by_it() {
    let world = World::new();
    let mut empty = world.shop(&[]);
    empty.name = "empty".to_owned();
    empty.address = world.network.service_address(2).unwrap();
    empty.ports.iter_mut().for_each(|port| port.host_port += 1);
    let mut single = world.shop(&[4]);
    single.name = "single".to_owned();
    single.address = world.network.service_address(3).unwrap();
    single.ports.clear();
    world.publish(vec![world.shop(&[2, 3]), empty, single]);
    let listed = world.node.command("nft list table ip whtest0");
    let expected = include_str!("table.nft");
    assert_eq!(listed, expected, "read back:\n{listed}");
}

#[test]
fn again_changes_nothing() {
    let world = World::new();
    let pod = world.pod(2);
    world.publish(vec![world.shop(&[2])]);
    let state = || {
        let links = world.node.command("ip -o -4 address") + &world.node.command("ip -o route");
        let inside = pod.command("ip -o address") + &pod.command("ip -o route");
        let ports = world.node.command("bridge -d link");
        (links, inside, ports, world.node.command("nft list ruleset"))
    };
    let before = state();
    assert!(before.2.contains("hairpin on"), "{}", before.2);
    world.on_node(|network, host| network.ensure_host(host).unwrap());
    world.attach(&pod, 2);
    assert_eq!(state(), before);
}

#[test]
fn a_number_is_free_again_before_the_kernel_has_cleaned_up() {
    let world = World::new();
    for _ in 0..5 {
        let pod = world.pod(2);
        world.node.connect((world.address(2), 80)).unwrap().ask();
        // The file keeps the namespace, and with it the old link, alive.
        let held = pod.file.clone();
        drop(pod);
        let next = world.pod(2);
        world.node.connect((world.address(2), 80)).unwrap().ask();
        drop((held, next));
    }
}

#[test]
fn a_changed_subnet_replaces_the_bridges_address() {
    let world = World::new();
    let subnet = "10.99.0.0/24".parse().unwrap();
    let moved = Network::new(NetworkConfig { bridge: BRIDGE.to_owned(), subnet }).unwrap();
    world.on_node(move |_, host| moved.ensure_host(host).unwrap());
    let addresses = world.node.command("ip -o -4 address show dev whtest0");
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    assert!(addresses.contains("10.99.0.1/25"), "{addresses}");
}

#[test]
fn a_pods_namespace_is_ready_for_programs_without_rights() {
    let pod = Namespace::new();
    let world = World::new();
    pod.run(|| wherry_netns::prepare_pod_namespace().unwrap());
    let setting = |name: &'static str| {
        pod.run(move || fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap())
    };
    assert_eq!(setting("ipv4/ip_unprivileged_port_start").trim(), "0");
    assert_eq!(setting("ipv4/ping_group_range").trim(), "0\t2147483647");
    world.attach(&pod, 2);
    let addresses = pod.command("ip -o address");
    assert!(addresses.contains("10.87.0.2/17"), "{addresses}");
    assert!(addresses.contains("::1/128"), "{addresses}");
    assert!(!addresses.contains("fe80"), "{addresses}");
    pod.run(|| drop(TcpListener::bind("[::1]:8000").unwrap()));
    assert!(pod.command("ip route").contains("default via 10.87.0.1 dev eth0"));
}

#[test]
fn remove_leaves_what_is_not_ours_and_nothing_of_ours() {
    let world = World::new();
    let _pods = [world.pod(2), world.pod(30)];
    world.publish(vec![world.shop(&[2, 30])]);
    world.node.command("nft add table ip other");
    world.node.command("ip link add whtest0-x type bridge");
    assert_eq!(
        world.on_node(|network, host| network.pod_links(host).unwrap()),
        ["whtest0-2", "whtest0-30"]
    );
    for _ in 0..2 {
        world.on_node(|network, host| network.remove_host(host).unwrap());
    }
    assert_eq!(world.node.command("nft list tables"), "table ip other\n");
    let links = world.node.command("ip -o link");
    let names: Vec<&str> =
        links.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim).collect();
    assert_eq!(names, ["lo", "up0", "whtest0-x"]);
    let routes = world.node.command("ip route");
    assert_eq!(routes.trim(), format!("192.0.2.0/24 dev up0 proto kernel scope link src {NODE}"));
}

#[test]
fn a_link_of_somebody_else_is_not_taken_over() {
    let world = World::new();
    world.on_node(|network, host| network.remove_host(host).unwrap());
    world.node.command("ip link add whtest0 type veth peer name other0");
    let error = world.on_node(|network, host| network.ensure_host(host).unwrap_err());
    assert!(matches!(&error, NetworkError::Foreign { name, .. } if name == BRIDGE), "{error}");
    let error = world.on_node(|network, host| network.remove_host(host).unwrap_err());
    assert!(matches!(error, NetworkError::Foreign { .. }), "{error}");
    assert!(world.node.command("ip -o link").contains("whtest0"));
}

#[test]
fn two_nodes_share_a_host() {
    let world = World::new();
    let subnet = "10.99.0.0/24".parse().unwrap();
    let other = NetworkConfig { bridge: "whtest1".to_owned(), subnet };
    let other = Network::new(other).unwrap();
    let _pod = world.pod(2);
    world.publish(vec![world.shop(&[2])]);
    world.on_node(move |_, host| {
        other.ensure_host(host).unwrap();
        other.publish(&[]).unwrap();
        other.remove_host(host).unwrap();
    });
    assert_eq!(world.outside.connect((NODE, 8080)).unwrap().ask().0, "pod2");
}
