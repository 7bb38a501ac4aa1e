//! What is not weir's stays as it is.

use crate::node::{Node, Result, TUTORIAL};

#[test]
fn foreign_virtual_servers_and_addresses_are_as_before() -> Result<()> {
    println!("::covers ipv4 tcp\n::covers ipv4 udp\n::covers ipv6 tcp");
    let node = Node::new(&TUTORIAL)?;
    node.sh("ipvsadm -A -t 198.51.100.1:80 -s wlc -p 300
         ipvsadm -a -t 198.51.100.1:80 -r 203.0.113.1:80 -g -w 5
         ipvsadm -A -u 198.51.100.1:53 -s sh -b sh-port
         ipvsadm -A -t [2001:db8:51::1]:80 -s rr
         ipvsadm -A -f 77 -s mh
         ipvsadm -a -f 77 -r 203.0.113.2 -i -w 3
         ip link add other0 type dummy
         ip link set other0 up
         ip address add 198.51.100.1/32 dev other0
         ip address add 2001:db8:51::1/128 dev other0 nodad
         ip address add 10.96.250.1/24 dev other0")?;
    let servers = node.ipvsadm()?;
    let addresses = node.ok("ip", ["address", "show", "dev", "other0"])?;

    let mut weir = node.start("ubuntu0")?;
    let during = node.ipvsadm()?;
    assert!(during.len() > servers.len());
    for line in &servers {
        assert!(during.contains(line), "{line} is gone: {during:?}");
    }
    assert_eq!(weir.terminate()?.code(), Some(0));
    let cleanup = node.weir(&["cleanup"])?;
    assert_eq!(cleanup.code, 0, "{cleanup:?}");

    assert_eq!(node.ipvsadm()?, servers);
    assert_eq!(
        node.ok("ip", ["address", "show", "dev", "other0"])?,
        addresses
    );
    assert!(node.ok("ip", ["link", "show", "dummy-weir0"]).is_err());
    assert_eq!(node.weir(&["cleanup"])?.stdout, "");
    Ok(())
}

#[test]
fn a_wanted_virtual_server_that_is_there_is_taken_over_in_place() -> Result<()> {
    println!("::covers ipv4 tcp");
    let node = Node::new(&TUTORIAL)?;
    node.sh("ipvsadm -A -t 10.105.110.237:8080 -s wlc
         ipvsadm -a -t 10.105.110.237:8080 -r 10.244.152.96:80 -m -w 1
         ipvsadm -a -t 10.105.110.237:8080 -r 10.244.99.99:80 -m -w 1")?;
    let weir = node.start("ubuntu0")?;
    let rendered = node.rendered("ubuntu0")?;
    node.until("the surplus server has drained", || {
        Ok(node.ipvsadm()? == rendered)
    })?;
    assert!(weir.log().contains("taking over"), "{}", weir.log());
    Ok(())
}

#[test]
fn what_a_killed_weir_left_is_recognised_by_the_next() -> Result<()> {
    println!("::covers ipv4 tcp");
    let node = Node::new(&TUTORIAL)?;
    let mut weir = node.start("ubuntu0")?;
    weir.kill()?;
    // Its device is gone, and one Service as well: only the record still says whose the virtual servers are.
    node.sh("ip link delete dummy-weir0")?;
    std::fs::remove_file(node.manifests().join("nginx-nodeport.yaml"))?;
    let _weir = node.start("ubuntu0")?;
    assert_eq!(node.ipvsadm()?, node.rendered("ubuntu0")?);
    Ok(())
}
