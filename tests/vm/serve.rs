//! Clients reach the endpoints through the virtual address, while endpoints come and go.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::node::{DEADLINE, Node, Result, http_get, inside, now, pause};

/// One family's addresses of the test: the VIP, and pods by number.
struct Addresses {
    family: &'static str,
    api_family: &'static str,
    vip: &'static str,
    gateway: &'static str,
    pod: fn(usize) -> String,
}

const V4: Addresses = Addresses {
    family: "ipv4",
    api_family: "IPv4",
    vip: "192.0.2.80",
    gateway: "169.254.1.1",
    pod: |number| format!("10.244.1.{number}"),
};

const V6: Addresses = Addresses {
    family: "ipv6",
    api_family: "IPv6",
    vip: "2001:db8:96::80",
    gateway: "2001:db8:169::1",
    pod: |number| format!("2001:db8:244::{number}"),
};

impl Addresses {
    fn manifest(&self, pods: &[usize]) -> String {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|number| {
                format!(
                    "{{addresses: [\"{}\"], nodeName: node-a}}",
                    (self.pod)(*number)
                )
            })
            .collect();
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: \"{vip}\", selector: {{app: web}}, ports: [{{port: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: {family}
ports: [{{port: 80}}]
endpoints: [{endpoints}]
",
            vip = self.vip,
            family = self.api_family,
            endpoints = endpoints.join(", "),
        )
    }

    fn frontend(&self) -> String {
        std::net::SocketAddr::new(self.vip.parse().unwrap(), 8080).to_string()
    }

    fn node(&self, test: &str, pods: usize) -> Result<Node> {
        let mut node = Node::new(&[("web.yaml", &self.manifest(&[1, 2]))])?;
        node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")?;
        for number in 1..=pods {
            node.pod(
                &format!("{test}-{number}"),
                &(self.pod)(number),
                self.gateway,
            )?;
        }
        node.pod(&format!("{test}-client"), &(self.pod)(99), self.gateway)?;
        Ok(node)
    }
}

#[test]
fn a_pod_reaches_every_endpoint_through_the_cluster_ip() -> Result<()> {
    for addresses in [&V4, &V6] {
        println!("::covers {} tcp", addresses.family);
        let node = addresses.node("reach", 2)?;
        let _weir = node.start("node-a")?;
        let frontend = addresses.frontend();
        node.until("the web servers answer", || {
            inside("reach-client", || http_get(&frontend).is_ok())
        })?;
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..10 {
            let answer = inside("reach-client", || {
                http_get(&frontend).map_err(|error| error.to_string())
            })??;
            *answers.entry(answer).or_default() += 1;
        }
        assert_eq!(
            answers,
            BTreeMap::from([("reach-1".to_owned(), 5), ("reach-2".to_owned(), 5)])
        );
    }
    Ok(())
}

#[test]
fn scaling_out_and_in_under_load_loses_no_request() -> Result<()> {
    for addresses in [&V4, &V6] {
        println!("::covers {} tcp", addresses.family);
        let node = addresses.node("scale", 4)?;
        let _weir = node.start("node-a")?;
        let frontend = addresses.frontend();
        node.until("the web servers answer", || {
            inside("scale-client", || http_get(&frontend).is_ok())
        })?;
        let done = AtomicBool::new(false);
        let (delays, answers) = std::thread::scope(|scope| -> Result<_> {
            let load = scope.spawn(|| {
                inside("scale-client", || load(&frontend, &done)).map_err(|error| error.to_string())
            });
            let delays = scale(&node, addresses);
            done.store(true, Ordering::SeqCst);
            let answers = load.join().map_err(|_panic| "the load panicked")??;
            Ok((delays?, answers))
        })?;
        println!("from the change of the file to the kernel: {delays:?} ms; answers: {answers:?}");
        assert!(!answers.contains_key("failed"), "{answers:?}");
        for number in 1..=4 {
            assert!(
                answers.contains_key(&format!("scale-{number}")),
                "{answers:?}"
            );
        }
    }
    Ok(())
}

/// One request after another, each answer counted by who gave it.
fn load(frontend: &str, done: &AtomicBool) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    while !done.load(Ordering::SeqCst) {
        let answer = http_get(frontend).unwrap_or_else(|error| {
            println!("a request failed: {error}");
            "failed".to_owned()
        });
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

/// Two endpoints, then four, then the other two. Each step waits until the kernel has it and every endpoint has answered once.
fn scale(node: &Node, addresses: &Addresses) -> Result<Vec<u128>> {
    let mut delays = Vec::new();
    for pods in [&[1, 2, 3, 4][..], &[3, 4]] {
        node.write("web.yaml", &addresses.manifest(pods))?;
        let written = now();
        let frontend = addresses.frontend();
        let rendered = node.rendered("node-a")?;
        // Endpoints that left stay at weight 0 while IPVS remembers their connections: two minutes, its TIME_WAIT.
        node.until("the kernel follows", || {
            let mut lines = node.ipvsadm()?;
            lines.retain(|line| !line.ends_with("-w 0"));
            Ok(lines == rendered)
        })?;
        delays.push(written.elapsed().as_millis());
        let mut served: BTreeMap<String, usize> = BTreeMap::new();
        while served.len() < pods.len() {
            let answer = inside("scale-client", || {
                http_get(&frontend).map_err(|error| error.to_string())
            })??;
            *served.entry(answer).or_default() += 1;
            if written.elapsed() > DEADLINE {
                return Err(format!("only {served:?} answer").into());
            }
        }
    }
    Ok(delays)
}

/// Kills of weir at times that differ, while the set of endpoints changes under load. Every pod lives all the time, so no request
/// may fail, and in the end the kernel is as the manifests say.
#[test]
fn being_killed_at_any_time_loses_no_request() -> Result<()> {
    const SETS: [&[usize]; 6] = [&[1, 2], &[1, 2, 3, 4], &[3, 4], &[1, 4], &[2, 3, 4], &[1]];
    for addresses in [&V4, &V6] {
        println!("::covers {} tcp", addresses.family);
        let node = addresses.node("kill", 4)?;
        drop(node.start("node-a")?);
        let frontend = addresses.frontend();
        node.until("the web servers answer", || {
            inside("kill-client", || http_get(&frontend).is_ok())
        })?;
        let done = AtomicBool::new(false);
        let answers = std::thread::scope(|scope| -> Result<_> {
            let load = scope.spawn(|| {
                inside("kill-client", || load(&frontend, &done)).map_err(|error| error.to_string())
            });
            let killed = kill_again_and_again(&node, addresses, &SETS);
            done.store(true, Ordering::SeqCst);
            let answers = load.join().map_err(|_panic| "the load panicked")??;
            killed?;
            Ok(answers)
        })?;
        println!("answers: {answers:?}");
        assert!(!answers.contains_key("failed"), "{answers:?}");
        let _weir = node.start("node-a")?;
        let rendered = node.rendered("node-a")?;
        node.until("the kernel is as the manifests say", || {
            let mut lines = node.ipvsadm()?;
            lines.retain(|line| !line.ends_with("-w 0"));
            Ok(lines == rendered)
        })?;
    }
    Ok(())
}

/// Starts weir, changes the endpoints and kills weir, at a time that walks over the whole of a start and a pass.
fn kill_again_and_again(node: &Node, addresses: &Addresses, sets: &[&[usize]]) -> Result<()> {
    for (round, pods) in sets.iter().cycle().take(12).enumerate() {
        let mut weir = node.spawn("node-a", &[])?;
        if round % 2 == 0 {
            node.write("web.yaml", &addresses.manifest(pods))?;
        }
        // No fixed point: 0 to 1.1 s, in steps that are no divisor of what weir does periodically.
        pause(Duration::from_millis(u64::try_from(round * 97 % 1_100)?));
        if round % 2 == 1 {
            node.write("web.yaml", &addresses.manifest(pods))?;
            pause(Duration::from_millis(u64::try_from(round * 61 % 700)?));
        }
        weir.kill()?;
    }
    Ok(())
}

/// IPVS keeps a UDP flow on its server for as long as packets come. When the server goes, the next packet must find another.
#[test]
fn a_udp_client_is_not_left_with_an_endpoint_that_is_gone() -> Result<()> {
    for addresses in [&V4, &V6] {
        println!("::covers {} udp", addresses.family);
        let node = addresses.node("udp", 2)?;
        let manifest = |pod| {
            addresses
                .manifest(&[pod])
                .replace("port: 8080", "port: 8080, protocol: UDP")
        };
        let manifest = |pod| manifest(pod).replace("[{port: 80}]", "[{port: 80, protocol: UDP}]");
        node.write("web.yaml", &manifest(1))?;
        let _weir = node.start("node-a")?;
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv4/vs/expire_nodest_conn")?.trim(),
            "1"
        );
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let done = &done;
            for pod in ["udp-1", "udp-2"] {
                scope.spawn(move || {
                    inside(pod, || answer_datagrams(pod, done)).map_err(|error| error.to_string())
                });
            }
            let asked = inside("udp-client", || {
                ask_datagrams(&addresses.frontend(), |answers| {
                    if answers == 3 {
                        node.write("web.yaml", &manifest(2))
                            .map_err(|error| error.to_string())
                    } else {
                        Ok(())
                    }
                })
            });
            done.store(true, Ordering::SeqCst);
            asked??;
            Ok(())
        })?;
    }
    Ok(())
}

fn answer_datagrams(name: &str, done: &AtomicBool) {
    let socket = UdpSocket::bind("[::]:80").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut buffer = [0; 64];
    while !done.load(Ordering::SeqCst) {
        if let Ok((_, client)) = socket.recv_from(&mut buffer) {
            socket.send_to(name.as_bytes(), client).unwrap();
        }
    }
}

/// Asks from one port, every 50 ms: `udp-1` first, until `udp-2` answers.
fn ask_datagrams(
    frontend: &str,
    after: impl Fn(u32) -> std::result::Result<(), String>,
) -> std::result::Result<(), String> {
    let unspecified = if frontend.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(unspecified).map_err(|error| error.to_string())?;
    socket
        .connect(frontend)
        .map_err(|error| error.to_string())?;
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .map_err(|error| error.to_string())?;
    let (started, mut answers, mut buffer) = (now(), 0, [0; 64]);
    while started.elapsed() < DEADLINE {
        // Before the server listens this is refused.
        drop(socket.send(b"who is there?"));
        if let Ok(length) = socket.recv(&mut buffer) {
            answers += 1;
            after(answers)?;
            if buffer.get(..length) == Some(b"udp-2") {
                return if answers > 3 {
                    Ok(())
                } else {
                    Err("udp-1 never answered".to_owned())
                };
            }
            pause(Duration::from_millis(50));
        }
    }
    Err(format!("only {answers} answers, and none from udp-2"))
}
