//! What weir makes of manifests is what the kernel holds, and what its commands say of it is true.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use crate::node::{CLUSTER, Node, Result, TUTORIAL, sorted};

#[test]
fn the_kernel_holds_what_render_prints() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv4 udp\n::covers ipv4 sctp");
    println!("::covers ipv6 tcp\n::covers ipv6 udp\n::covers ipv6 sctp");
    for (manifests, node_name) in [(&TUTORIAL[..], "ubuntu0"), (&CLUSTER[..], "node-0")] {
        let node = Node::new(manifests)?;
        let _weir = node.start(node_name)?;
        let rendered = node.rendered(node_name)?;
        assert!(rendered.len() > 10, "{rendered:?}");
        assert_eq!(node.ipvsadm()?, rendered);
    }
    Ok(())
}

#[test]
fn the_rendered_packet_rules_load_and_hold_the_cluster() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv4 udp\n::covers ipv4 sctp");
    println!("::covers ipv6 tcp\n::covers ipv6 udp\n::covers ipv6 sctp");
    let node = Node::new(&CLUSTER)?;
    let manifests = node.manifests();
    let manifests = manifests.to_str().ok_or("the path is no text")?;
    let said = node.weir(&[
        "render",
        "-o",
        "nft",
        "--node-name",
        "node-0",
        "--manifests",
        manifests,
    ])?;
    assert_eq!(said.code, 0, "{said:?}");
    let file = node.run_dir().with_extension("nft");
    std::fs::write(&file, said.stdout)?;
    // Twice: the file replaces what it made before.
    node.ok("nft", [OsStr::new("-f"), file.as_os_str()])?;
    node.ok("nft", [OsStr::new("-f"), file.as_os_str()])?;
    for (set, element) in [
        ("inet weir owned4", "10.96.1.1 . tcp . 443"),
        ("inet weir owned6", "fd00:96::126 . sctp . 9999"),
        ("inet weir masq_offcluster4", "10.96.0.10 . udp . 53"),
        ("inet weir dark4", "10.96.1.28 . tcp . 80"),
        ("inet weir dark6", "fd00:96::128 . tcp . 80"),
        ("inet weir drop4", "10.96.1.16 . tcp . 80"),
        ("inet weir drop6", "fd00:96::116 . tcp . 80"),
        ("inet weir endpoints4", "10.244.0.10 . tcp . 8080"),
        ("inet weir hairpin4", "10.244.0.10 . 10.244.0.10"),
        ("inet weir vips4", "10.96.1.1"),
        ("arp weir vips", "10.96.1.1"),
    ] {
        // nft reads the element from words of its own, so a wrong byte order or type would not be found.
        node.sh(&format!("nft get element {set} '{{ {element} }}'"))?;
    }
    let remote = node.run(
        "bash",
        [
            "-c",
            "nft get element inet weir hairpin4 '{ 10.244.1.10 . 10.244.1.10 }'",
        ],
    )?;
    assert_ne!(
        remote.code, 0,
        "an endpoint of another node is no hairpin here"
    );
    Ok(())
}

#[test]
fn vips_are_bound_so_that_the_node_never_speaks_from_them() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv6 tcp");
    let node = Node::new(&CLUSTER)?;
    let _weir = node.start("node-0")?;
    let link = node.ok("ip", ["-d", "link", "show", "dummy-weir0"])?;
    for word in ["NOARP", "UP", "dummy"] {
        assert!(link.contains(word), "{word}: {link}");
    }
    let v4 = node.ok("ip", ["-4", "-o", "address", "show", "dev", "dummy-weir0"])?;
    assert!(v4.lines().count() > 20, "{v4}");
    for line in v4.lines() {
        assert!(line.contains("/32 scope host"), "{line}");
    }
    let v6 = node.ok("ip", ["-6", "-o", "address", "show", "dev", "dummy-weir0"])?;
    let vips: Vec<_> = v6.lines().filter(|line| !line.contains("fe80::")).collect();
    assert!(vips.len() > 15, "{v6}");
    for line in vips {
        assert!(
            line.contains("/128") && line.contains("preferred_lft 0sec"),
            "{line}"
        );
        assert!(!line.contains("tentative"), "{line}");
    }
    Ok(())
}

/// Rows of `ipvsadm -Ln`: protocol, socket, scheduler; then forward, weight, active, inactive.
fn listed(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            [protocol @ ("TCP" | "UDP" | "SCTP"), socket, scheduler, ..] => {
                current = format!("{protocol} {socket} {scheduler}");
                table.entry(current.clone()).or_default();
            }
            ["->", socket, "Masq", weight, active, inactive] => {
                let real = format!("{socket} {weight} {active} {inactive}");
                table.entry(current.clone()).or_default().push(real);
            }
            _ => {}
        }
    }
    for reals in table.values_mut() {
        reals.sort();
    }
    table
}

fn told(status: &serde_json::Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let socket = |server: &serde_json::Value| {
        let address: std::net::IpAddr = server["address"].as_str().unwrap().parse().unwrap();
        let port = u16::try_from(server["port"].as_u64().unwrap()).unwrap();
        std::net::SocketAddr::new(address, port).to_string()
    };
    let mut table = BTreeMap::new();
    for server in status["virtualServers"].as_array().unwrap() {
        let key = format!(
            "{} {} {}",
            text(&server["protocol"]),
            socket(server),
            text(&server["scheduler"])
        );
        let mut reals: Vec<_> = server["realServers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|real| {
                format!(
                    "{} {} {} {}",
                    socket(real),
                    real["weight"],
                    real["active"],
                    real["inactive"]
                )
            })
            .collect();
        reals.sort();
        table.insert(key, reals);
    }
    table
}

#[test]
fn status_says_what_ipvsadm_says() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv6 tcp");
    let node = Node::new(&CLUSTER)?;
    let _weir = node.start("node-0")?;
    let said = node.weir(&["status", "-o", "json"])?;
    assert_eq!(said.code, 0, "{said:?}");
    let status: serde_json::Value = serde_json::from_str(&said.stdout)?;
    assert_eq!(status["apiVersion"], "weir/v1");
    assert_eq!(status["node"], "node-0");
    assert_eq!(status["state"], "converged");
    let kernel = listed(&node.ok("ipvsadm", ["-Ln"])?);
    assert!(kernel.len() > 20);
    assert_eq!(told(&status), kernel);
    let web = status["virtualServers"]
        .as_array()
        .ok_or("no list")?
        .iter()
        .find(|server| server["address"] == "10.96.1.1" && server["port"] == 443)
        .ok_or("the Service web is not shown")?;
    assert_eq!(web["service"], "default/web");
    assert_eq!(web["portName"], "https");
    assert_eq!(web["vip"]["device"], "dummy-weir0");
    assert_eq!(web["vip"]["mode"], "address");
    Ok(())
}

#[test]
fn with_weir_killed_status_says_so_and_shows_the_kernel() -> Result<()> {
    println!("::covers ipv4 tcp");
    let node = Node::new(&TUTORIAL)?;
    let mut weir = node.start("ubuntu0")?;
    weir.kill()?;
    let said = node.weir(&["status", "-o", "json"])?;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("no weir runs"), "{said:?}");
    let status: serde_json::Value = serde_json::from_str(&said.stdout)?;
    assert_eq!(status["state"], "down");
    assert_eq!(told(&status), listed(&node.ok("ipvsadm", ["-Ln"])?));
    assert_eq!(status["vips"].as_array().ok_or("no VIPs")?.len(), 5);
    let table = node.weir(&["status"])?;
    assert_eq!(table.code, 3);
    assert!(table.stdout.contains("10.105.110.237:8080"), "{table:?}");
    Ok(())
}

#[test]
fn diff_is_empty_after_convergence_and_exact_after_a_change_by_hand() -> Result<()> {
    println!("::covers ipv4 tcp");
    let node = Node::new(&TUTORIAL)?;
    let _weir = node.start("ubuntu0")?;
    let said = node.weir(&["diff"])?;
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said:?}");

    node.sh("ipvsadm -d -t 10.105.110.237:8080 -r 10.244.152.96:80
         ipvsadm -e -t 10.105.110.237:8080 -r 10.244.25.161:80 -m -w 7
         ipvsadm -a -t 10.105.110.237:8080 -r 10.244.99.99:80 -m
         ipvsadm -E -t 10.96.237.238:3306 -s wlc
         ipvsadm -D -t 10.96.0.1:443
         ip address delete 10.96.0.1/32 dev dummy-weir0
         ip address add 10.96.77.77/32 dev dummy-weir0")?;
    let expected = "\
+ virtual server TCP 10.96.0.1:443 scheduler rr
+ real server TCP 10.96.0.1:443 -> 192.168.23.99:6443 weight 1
~ virtual server TCP 10.96.237.238:3306 scheduler rr
~ real server TCP 10.105.110.237:8080 -> 10.244.25.161:80 weight 1
+ real server TCP 10.105.110.237:8080 -> 10.244.152.96:80 weight 1
~ real server TCP 10.105.110.237:8080 -> 10.244.99.99:80 weight 0
+ vip 10.96.0.1
- vip 10.96.77.77
";
    let from_running = node.weir(&["diff"])?;
    assert_eq!(
        (from_running.code, from_running.stdout.as_str()),
        (1, expected)
    );
    let manifests = node.manifests();
    let manifests = manifests.to_str().ok_or("the path is no text")?;
    let from_manifests =
        node.weir(&["diff", "--node-name", "ubuntu0", "--manifests", manifests])?;
    assert_eq!(
        (from_manifests.code, from_manifests.stdout.as_str()),
        (1, expected)
    );
    Ok(())
}

#[test]
fn a_restart_on_a_correct_kernel_writes_nothing() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv6 tcp");
    let node = Node::new(&CLUSTER)?;
    let mut weir = node.start("node-0")?;
    assert_eq!(weir.terminate()?.code(), Some(0), "{}", weir.log());
    // Anything weir writes to links, addresses or routes is seen here; what it writes to IPVS it says itself.
    let before = (node.ipvsadm()?, node.ok("ip", ["-d", "address"])?);
    node.sh("ip monitor all >/run/monitor 2>&1 & echo $! >/run/monitor.pid")?;
    let weir = node.start("node-0")?;
    let status: serde_json::Value =
        serde_json::from_str(&node.weir(&["status", "-o", "json"])?.stdout)?;
    node.sh("kill $(cat /run/monitor.pid)")?;
    assert_eq!(std::fs::read_to_string("/run/monitor")?, "");
    assert_eq!(status.get("lastPass"), None, "{}", weir.log());
    assert_eq!((node.ipvsadm()?, node.ok("ip", ["-d", "address"])?), before);
    Ok(())
}

#[test]
fn changes_of_every_kind_reach_the_kernel() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv6 udp");
    let node = Node::new(&[("a.yaml", &service("192.0.2.10", "TCP", "10.244.0.1"))])?;
    let _weir = node.start("node-a")?;
    let changes = [
        (
            "b.yaml",
            service("2001:db8:96::10", "UDP", "2001:db8:244::1"),
        ),
        ("a.yaml", service("192.0.2.11", "TCP", "10.244.0.2")),
        (
            "b.yaml",
            service("2001:db8:96::10", "SCTP", "2001:db8:244::2"),
        ),
    ];
    for (file, text) in changes {
        node.write(file, &text)?;
        let rendered = node.rendered("node-a")?;
        node.until("the kernel follows", || Ok(node.ipvsadm()? == rendered))?;
    }
    std::fs::remove_file(node.manifests().join("b.yaml"))?;
    let rendered = node.rendered("node-a")?;
    node.until("the kernel follows a removed file", || {
        Ok(node.ipvsadm()? == rendered)
    })?;
    let addresses = node.ok("ip", ["-o", "address", "show", "dev", "dummy-weir0"])?;
    let vips = sorted(&addresses)
        .into_iter()
        .filter(|line| !line.contains("fe80::"))
        .count();
    assert_eq!(vips, 1, "{addresses}");
    Ok(())
}

#[test]
fn what_others_change_is_repaired_within_an_audit_cycle() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv6 tcp");
    let node = Node::new(&CLUSTER)?;
    let _weir = node.start_with("node-0", &["--audit-cycle", "2s"])?;
    let (servers, addresses) = (
        node.ipvsadm()?,
        node.ok("ip", ["-o", "address", "show", "dev", "dummy-weir0"])?,
    );
    for damage in [
        "ipvsadm -D -t 10.96.1.1:80",
        "ipvsadm -e -t 10.96.1.1:80 -r 10.244.0.10:8080 -m -w 9",
        "ipvsadm -E -t [fd00:96::101]:80 -s wlc",
        "ipvsadm -a -t [fd00:96::101]:80 -r [fd00:244::99]:80 -m",
        "ip address delete 10.96.1.1/32 dev dummy-weir0",
        "ip link set dummy-weir0 down",
        "ip link delete dummy-weir0",
        "ipvsadm -C",
    ] {
        node.sh(damage)?;
        node.until(damage, || {
            Ok(node.ipvsadm()? == servers && vips(&node)? == vip_lines(&addresses))
        })?;
    }
    Ok(())
}

fn vips(node: &Node) -> Result<Vec<String>> {
    let said = node.run("ip", ["-o", "address", "show", "dev", "dummy-weir0"])?;
    Ok(vip_lines(&said.stdout))
}

/// The addresses alone: the index of a device that was made anew differs.
fn vip_lines(text: &str) -> Vec<String> {
    let addresses = text.lines().filter(|line| !line.contains("fe80::"));
    let words = addresses.filter_map(|line| line.split_whitespace().nth(3));
    let mut vips: Vec<_> = words.map(ToOwned::to_owned).collect();
    vips.sort();
    vips
}

#[test]
fn an_endpoint_that_leaves_drains_until_its_deadline() -> Result<()> {
    println!("::covers ipv4 tcp");
    let node = Node::new(&[("a.yaml", &service("192.0.2.10", "TCP", "10.244.0.1"))])?;
    // The real server does not exist: a connection to it stays in IPVS's table as one that waits for an answer.
    node.sh("ip address add 10.244.0.254/24 dev lo")?;
    let _weir = node.start_with("node-a", &["--drain-timeout", "3s"])?;
    let address: std::net::SocketAddr = "192.0.2.10:80".parse()?;
    let connect =
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200));
    assert!(connect.is_err());
    node.write("a.yaml", &service("192.0.2.10", "TCP", "10.244.0.2"))?;
    let server = "-a -t 192.0.2.10:80 -r 10.244.0.1:8080";
    let line = |weight: &str| format!("-a -t 192.0.2.10:80 -r 10.244.0.1:8080 -m -w {weight}");
    node.until("the server is quiesced", || {
        Ok(node.ipvsadm()?.contains(&line("0")))
    })?;
    node.until("the server is deleted at its deadline", || {
        Ok(!node.ipvsadm()?.iter().any(|line| line.starts_with(server)))
    })?;
    Ok(())
}

fn service(vip: &str, protocol: &str, endpoint: &str) -> String {
    let (family, name) = if vip.contains(':') {
        ("IPv6", "six")
    } else {
        ("IPv4", "four")
    };
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: \"{vip}\"
  clusterIPs: [\"{vip}\"]
  ports: [{{port: 80, protocol: {protocol}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {family}
ports: [{{port: 8080, protocol: {protocol}}}]
endpoints: [{{addresses: [\"{endpoint}\"]}}]
"
    )
}
