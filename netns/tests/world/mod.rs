//! A node with pods and an outside, each a network namespace of its own.
//!
//! A namespace lives in a thread: it needs no name anywhere, and goes when the
//! thread does, however the test ends. Nothing touches the machine's own
//! network.

// Each of the test programs uses a part of it.
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use wherry_netns::{
    Netlink, Network, NetworkConfig, Protocol, PublishedPort, Service, prepare_pod_namespace,
};

pub const BRIDGE: &str = "whtest0";
/// Long enough for a busy machine; what is refused takes far less.
pub const PATIENCE: Duration = Duration::from_secs(2);
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

type Job = Box<dyn FnOnce() + Send>;

pub struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub file: Arc<File>,
    tid: i32,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, work) = channel::<Job>();
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let file = File::open("/proc/thread-self/ns/net").unwrap();
            ready.send((file, nix::unistd::gettid().as_raw())).unwrap();
            work.into_iter().for_each(|job| job());
        });
        let (file, tid) = is_ready.recv().unwrap();
        Self { jobs: Some(jobs), thread: Some(thread), file: Arc::new(file), tid }
    }

    /// Runs `job` in the namespace. A socket made there stays there.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, result) = channel();
        let job = move || drop(answer.send(job()));
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        result.recv().expect("the job failed, see above")
    }

    pub fn command(&self, line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let output = self.run(move || Command::new(&words[0]).args(&words[1..]).output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn connect(&self, to: impl Into<SocketAddr>) -> std::io::Result<Client> {
        let to = to.into();
        let stream = self.run(move || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(Client { reader: BufReader::new(stream.try_clone().unwrap()), stream })
    }

    pub fn udp(&self) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// One ICMP echo, by a socket that needs no privilege in a pod.
    pub fn ping(&self, to: Ipv4Addr) {
        let echo = self.run(|| {
            let (kind, protocol) = (SockType::Datagram, SockProtocol::Icmp);
            socket(AddressFamily::Inet, kind, SockFlag::empty(), protocol).unwrap()
        });
        let echo = UdpSocket::from(echo);
        echo.set_read_timeout(Some(PATIENCE)).unwrap();
        echo.send_to(&[8, 0, 0, 0, 0, 0, 0, 1], (to, 0)).unwrap();
        let mut answer = [0xff; 64];
        echo.recv(&mut answer).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert_eq!(answer[0], 0, "an echo reply");
    }

    /// Answers each line with `NAME PEER LINE`.
    pub fn serve(&self, name: &str, at: impl Into<SocketAddr>) {
        let at = at.into();
        let listener = self.run(move || TcpListener::bind(at).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (name, mut stream) = (name.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap().ip();
                    let reader = BufReader::new(stream.try_clone().unwrap());
                    for line in reader.lines().map_while(Result::ok) {
                        if writeln!(stream, "{name} {peer} {line}").is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }

    /// Answers each datagram with `NAME`.
    pub fn serve_udp(&self, name: &str, port: u16) {
        let socket = self.run(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                let _ = socket.send_to(name.as_bytes(), peer);
            }
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().unwrap().join();
    }
}

pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Who answers, and the address that it sees.
    pub fn ask(&mut self) -> (String, Ipv4Addr) {
        writeln!(self.stream, "hello").unwrap();
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("an answer in time");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.get(2), Some(&"hello"), "{line:?}");
        (words[0].to_owned(), words[1].parse().unwrap())
    }
}

/// A node with an outside neighbour that knows nothing of pods.
pub struct World {
    pub network: Network,
    pub node: Namespace,
    pub outside: Namespace,
}

impl World {
    pub fn new() -> Self {
        let subnet = "10.87.0.0/16".parse().unwrap();
        let network = Network::new(NetworkConfig { bridge: BRIDGE.to_owned(), subnet }).unwrap();
        let (node, outside) = (Namespace::new(), Namespace::new());
        node.command("ip link set lo up");
        outside.command("ip link set lo up");
        let tid = outside.tid;
        node.command(&format!("ip link add up0 type veth peer name eth0 netns {tid}"));
        node.command(&format!("ip address add {NODE}/24 dev up0"));
        node.command("ip link set up0 up");
        outside.command(&format!("ip address add {OUTSIDE}/24 dev eth0"));
        outside.command("ip link set eth0 up");
        let world = Self { network, node, outside };
        world.on_node(|network, host| network.ensure_host(host).unwrap());
        world
    }

    pub fn on_node<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Network, &Netlink) -> T + Send + 'static,
    ) -> T {
        let network = self.network.clone();
        self.node.run(move || job(&network, &Netlink::open().unwrap()))
    }

    pub fn attach(&self, pod: &Namespace, number: u16) -> Ipv4Addr {
        let inside = pod.run(|| Netlink::open().unwrap());
        let file = pod.file.clone();
        self.on_node(move |network, host| {
            network.attach_pod(host, &inside, file.as_fd(), number).unwrap()
        })
    }

    /// A pod that answers at ports 80 (TCP) and 53 (UDP) with its number.
    pub fn pod(&self, number: u16) -> Namespace {
        let pod = Namespace::new();
        pod.run(|| prepare_pod_namespace().unwrap());
        self.attach(&pod, number);
        pod.serve(&format!("pod{number}"), (Ipv4Addr::UNSPECIFIED, 80));
        pod.serve_udp(&format!("pod{number}"), 53);
        pod
    }

    pub fn address(&self, number: u16) -> Ipv4Addr {
        self.network.pod_address(number).unwrap()
    }

    /// Service 1, at host ports 8080 (TCP) and 5353 (UDP).
    pub fn shop(&self, pods: &[u16]) -> Service {
        let port = |protocol, host_port, container_port| PublishedPort {
            protocol,
            host_port,
            container_port,
        };
        Service {
            name: "shop".to_owned(),
            address: self.network.service_address(1).unwrap(),
            pods: pods.iter().map(|number| self.address(*number)).collect(),
            ports: vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 5353, 53)],
        }
    }

    pub fn publish(&self, services: Vec<Service>) {
        self.on_node(move |network, _| network.publish(&services).unwrap());
    }

    pub fn shop_address(&self) -> Ipv4Addr {
        self.network.service_address(1).unwrap()
    }
}
