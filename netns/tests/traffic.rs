//! Packets through real namespaces. Needs root, and `ip` and `nft` to look at
//! the result (Debian: iproute2, nftables).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use world::{NODE, Namespace, OUTSIDE, World};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// A refusal comes at once; this leaves room for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(700);

fn assert_refused(from: &Namespace, to: impl Into<SocketAddr>) {
    let (to, start) = (to.into(), Instant::now());
    let error = from.connect(to).err().unwrap_or_else(|| panic!("{to} answers"));
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
    assert!(start.elapsed() < AT_ONCE, "{to}: after {:?}", start.elapsed());
}

#[test]
fn pods_reach_each_other_and_services() {
    check_pods_and_services(&World::new());
}

/// With br_netfilter a host's IP rules, ours included, also see what a bridge
/// only passes on; hosts of container engines have it.
#[test]
fn bridged_packets_may_pass_ip_rules_or_not() {
    for value in ["0", "1"] {
        let world = World::new();
        let name = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        world.node.run(move || std::fs::write(name, value).expect("br_netfilter"));
        check_pods_and_services(&world);
    }
}

fn check_pods_and_services(world: &World) {
    let (one, two) = (world.pod(2), world.pod(3));
    world.publish(vec![world.shop(&[3])]);

    // By its address the other pod sees who asks.
    let direct = one.connect((world.address(3), 80)).unwrap().ask();
    assert_eq!(direct, ("pod3".to_owned(), world.address(2)));
    // By a service the node asks on its behalf.
    let gateway = world.network.bridge_address();
    let service = one.connect((world.shop_address(), 80)).unwrap().ask();
    assert_eq!(service, ("pod3".to_owned(), gateway));
    // A pod that leads to itself.
    let hairpin = two.connect((world.shop_address(), 80)).unwrap().ask();
    assert_eq!(hairpin, ("pod3".to_owned(), gateway));
    // The node itself.
    let node = world.node.connect((world.shop_address(), 80)).unwrap().ask();
    assert_eq!(node, ("pod3".to_owned(), gateway));
    // Every protocol.
    one.ping(world.shop_address());
    one.ping(world.address(3));
    let udp = one.udp();
    udp.send_to(b"?", (world.shop_address(), 53)).unwrap();
    let (_, from) = udp.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(from.ip(), world.shop_address());
}

#[test]
fn host_ports_answer_on_every_address() {
    let world = World::new();
    let (one, _two) = (world.pod(2), world.pod(3));
    world.publish(vec![world.shop(&[3])]);
    let gateway = world.network.bridge_address();

    let outside = world.outside.connect((NODE, 8080)).unwrap().ask();
    assert_eq!(outside, ("pod3".to_owned(), OUTSIDE), "the client's address is kept");
    let own = world.node.connect((NODE, 8080)).unwrap().ask();
    assert_eq!(own, ("pod3".to_owned(), NODE));
    let loopback = world.node.connect((LOOPBACK, 8080)).unwrap().ask();
    assert_eq!(loopback, ("pod3".to_owned(), gateway));
    let bridge = world.node.connect((gateway, 8080)).unwrap().ask();
    assert_eq!(bridge.0, "pod3");
    let pod = one.connect((NODE, 8080)).unwrap().ask();
    assert_eq!(pod, ("pod3".to_owned(), gateway));
    let pod_by_bridge = one.connect((gateway, 8080)).unwrap().ask();
    assert_eq!(pod_by_bridge.0, "pod3");

    for (from, to) in [(&world.outside, NODE), (&world.node, LOOPBACK), (&one, NODE)] {
        let socket = from.udp();
        socket.connect((to, 5353)).unwrap();
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), "pod3".len());
    }
}

#[test]
fn connections_go_to_the_pods_in_turn() {
    let world = World::new();
    let _pods = [world.pod(2), world.pod(3), world.pod(4)];
    world.publish(vec![world.shop(&[2, 3, 4])]);
    for (from, to) in [(&world.outside, (NODE, 8080)), (&world.node, (world.shop_address(), 80))] {
        let six: Vec<String> = (0..6).map(|_| from.connect(to).unwrap().ask().0).collect();
        assert_eq!(six[..3], six[3..]);
        let mut three = six[..3].to_vec();
        three.sort();
        assert_eq!(three, ["pod2", "pod3", "pod4"]);
    }
}

#[test]
fn open_connections_outlive_a_publish() {
    let world = World::new();
    let (_two, _three, client) = (world.pod(2), world.pod(3), world.pod(4));
    world.publish(vec![world.shop(&[2])]);
    let mut open = [
        world.outside.connect((NODE, 8080)).unwrap(),
        world.node.connect((LOOPBACK, 8080)).unwrap(),
        client.connect((world.shop_address(), 80)).unwrap(),
    ];
    for client in &mut open {
        assert_eq!(client.ask().0, "pod2");
    }
    for pods in [&[2, 3][..], &[3], &[]] {
        world.publish(vec![world.shop(pods)]);
        for client in &mut open {
            assert_eq!(client.ask().0, "pod2");
        }
    }
    world.publish(vec![world.shop(&[3])]);
    assert_eq!(world.outside.connect((NODE, 8080)).unwrap().ask().0, "pod3");
}

#[test]
fn no_connection_fails_while_services_are_published() {
    let world = World::new();
    let _pods = [world.pod(2), world.pod(3)];
    let (one, both) = (world.shop(&[2]), world.shop(&[2, 3]));
    world.publish(vec![both.clone()]);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for round in 0..60 {
                world.publish(vec![if round % 2 == 0 { one.clone() } else { both.clone() }]);
            }
        });
        let mut asked = 0;
        while !publisher.is_finished() {
            world.outside.connect((NODE, 8080)).expect("a connection during a publish").ask();
            asked += 1;
        }
        assert!(asked > 10, "{asked}");
    });
}

#[test]
fn without_pods_connections_are_refused_at_once() {
    let world = World::new();
    let pod = world.pod(2);
    // The node listens there itself, but has given the port away.
    world.node.serve("node", (Ipv4Addr::UNSPECIFIED, 8080));
    assert_eq!(world.outside.connect((NODE, 8080)).unwrap().ask().0, "node");
    world.publish(vec![world.shop(&[])]);
    let unknown = world.network.service_address(77).unwrap();
    for to in [world.shop_address(), unknown] {
        assert_refused(&pod, (to, 80));
        assert_refused(&world.node, (to, 80));
    }
    assert_refused(&world.outside, (NODE, 8080));
    assert_refused(&world.node, (LOOPBACK, 8080));
    assert_refused(&pod, (NODE, 8080));

    for (from, to) in [
        (&world.outside, SocketAddr::from((NODE, 5353))),
        (&world.node, SocketAddr::from((LOOPBACK, 5353))),
        (&pod, SocketAddr::from((world.shop_address(), 53))),
    ] {
        let socket = from.udp();
        socket.connect(to).unwrap();
        socket.send(b"?").unwrap();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
}

#[test]
fn pods_reach_the_world_by_the_nodes_address() {
    let world = World::new();
    let pod = world.pod(2);
    world.outside.serve("outside", (OUTSIDE, 9000));
    assert_eq!(pod.connect((OUTSIDE, 9000)).unwrap().ask(), ("outside".to_owned(), NODE));
}

#[test]
fn pods_are_reached_from_outside_by_published_ports_only() {
    let world = World::new();
    let _pod = world.pod(2);
    world.publish(vec![world.shop(&[2])]);
    world.outside.command(&format!("ip route add 10.87.0.0/16 via {NODE}"));
    assert_refused(&world.outside, (world.address(2), 80));
    assert_refused(&world.outside, (world.shop_address(), 80));
    assert_eq!(world.outside.connect((NODE, 8080)).unwrap().ask().0, "pod2");
}

#[test]
fn pods_cannot_reach_the_nodes_loopback() {
    let world = World::new();
    let pod = world.pod(2);
    world.node.serve("node", (LOOPBACK, 9000));
    world.node.serve("node", (world.network.bridge_address(), 9001));
    // What a pod with CAP_NET_ADMIN could do.
    pod.command("ip route del local 127.0.0.0/8 dev lo table local");
    pod.command("ip route del local 127.0.0.1 dev lo table local");
    pod.command(&format!("ip route add 127.0.0.0/8 via {}", world.network.bridge_address()));
    pod.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    });
    let error = pod.connect((LOOPBACK, 9000)).err().expect("no way to the node's 127.0.0.1");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let guard = world.node.command("nft list chain ip whtest0 prerouting-guard");
    assert!(guard.contains("127.0.0.0/8 drop"), "{guard}");
    // The way as such is open.
    pod.connect((world.network.bridge_address(), 9001)).unwrap().ask();
}

/// Sends from one port all the time, as sensors do, and gives who answers.
fn sensor(world: &World) -> impl Fn() -> std::io::Result<String> {
    let socket = world.outside.udp();
    socket.connect((NODE, 5353)).unwrap();
    move || {
        socket.send(b"?")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

#[test]
fn udp_senders_leave_a_pod_that_is_gone() {
    let world = World::new();
    let (_two, _three) = (world.pod(2), world.pod(3));
    world.publish(vec![world.shop(&[2])]);
    let ask = sensor(&world);
    assert_eq!(ask().unwrap(), "pod2");
    world.publish(vec![world.shop(&[3])]);
    assert_eq!(ask().unwrap(), "pod2", "as long as the pod is there, its senders stay");
    let two = world.address(2);
    assert_eq!(world.on_node(move |network, _| network.forget_pod(two).unwrap()), 1);
    assert_eq!(ask().unwrap(), "pod3");
}

#[test]
fn udp_senders_find_a_pod_that_comes_later() {
    let world = World::new();
    let _pod = world.pod(2);
    let ask = sensor(&world);
    assert_eq!(ask().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    world.publish(vec![world.shop(&[2])]);
    assert_eq!(ask().unwrap(), "pod2");
}
