//! When weir cannot work it says why, what to do about it, and how it ended.

use std::os::unix::process::CommandExt as _;

use crate::node::{Node, Result, TUTORIAL, said};

#[test]
fn without_permission_the_remedy_is_named() -> Result<()> {
    let node = Node::new(&TUTORIAL)?;
    node.ok(
        "chmod",
        [
            "-R",
            "a+rwX",
            node.manifests()
                .parent()
                .and_then(|path| path.to_str())
                .ok_or("no path")?,
        ],
    )?;
    let manifests = node.manifests();
    let manifests = manifests.to_str().ok_or("the path is no text")?;
    for args in [
        &["run", "--node-name", "ubuntu0", "--manifests", manifests][..],
        &["cleanup"],
    ] {
        let said = said(node.command(args).uid(65534).gid(65534))?;
        assert_eq!(said.code, 4, "{args:?}: {said:?}");
        assert!(said.stderr.contains("CAP_NET_ADMIN"), "{args:?}: {said:?}");
        assert_eq!(said.stdout, "");
    }
    assert_eq!(node.ipvsadm()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_second_weir_in_the_namespace_is_refused() -> Result<()> {
    let node = Node::new(&TUTORIAL)?;
    let _weir = node.start("ubuntu0")?;
    let manifests = node.manifests();
    let manifests = manifests.to_str().ok_or("the path is no text")?;
    let other = tempfile::tempdir()?;
    let mut command = node.command(&["run", "--node-name", "ubuntu0", "--manifests", manifests]);
    // The last --run-dir would be given twice: the second weir takes another directory, and the namespace is still taken.
    command = {
        let program = command.get_program().to_owned();
        let mut again = std::process::Command::new(program);
        again
            .args(["run", "--node-name", "ubuntu0", "--run-dir"])
            .arg(other.path())
            .args(["--manifests", manifests]);
        again
    };
    let second = said(&mut command)?;
    assert_eq!(second.code, 4, "{second:?}");
    assert!(
        second
            .stderr
            .contains("another weir programs this network namespace"),
        "{second:?}"
    );

    let same = node.weir(&["cleanup"])?;
    assert_eq!(same.code, 4, "{same:?}");
    assert!(
        same.stderr.contains("another weir uses the run directory"),
        "{same:?}"
    );
    assert_eq!(node.weir(&["status", "--brief"])?.code, 0);
    Ok(())
}

#[test]
fn a_link_of_our_name_that_is_no_dummy_stops_the_start() -> Result<()> {
    let node = Node::new(&TUTORIAL)?;
    node.sh("ip link add dummy-weir0 type bridge")?;
    let mut weir = node.spawn("ubuntu0", &[])?;
    assert_eq!(weir.wait()?.code(), Some(4), "{}", weir.log());
    assert!(
        weir.log().contains("is bridge, not a dummy device"),
        "{}",
        weir.log()
    );
    assert_eq!(node.ipvsadm()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn without_ipvs_in_the_kernel_the_module_is_named() -> Result<()> {
    let node = Node::new(&TUTORIAL)?;
    // The kernel frees the namespaces of earlier tests a little later; until then the module is in use.
    let unloaded = node.until("the module ip_vs can be unloaded", || {
        node.sh("for module in $(grep -o '^ip_vs_[a-z]*' /proc/modules); do rmmod $module 2>/dev/null || true; done")?;
        Ok(node.run("rmmod", ["ip_vs"])?.code == 0)
    });
    let autoload = std::fs::read_to_string("/proc/sys/kernel/modprobe")?;
    std::fs::write("/proc/sys/kernel/modprobe", "/bin/false")?;
    let manifests = node.manifests();
    let manifests = manifests.to_str().ok_or("the path is no text")?;
    let run = node.weir(&["run", "--node-name", "ubuntu0", "--manifests", manifests]);
    let status = node.weir(&["status"]);
    std::fs::write("/proc/sys/kernel/modprobe", autoload.trim())?;
    node.ok("modprobe", ["ip_vs"])?;
    unloaded?;
    let (run, status) = (run?, status?);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("modprobe ip_vs"), "{run:?}");
    assert_eq!(status.code, 3, "{status:?}");
    assert!(status.stdout.contains("modprobe ip_vs"), "{status:?}");
    Ok(())
}

#[test]
fn a_file_that_turns_bad_keeps_its_last_good_content() -> Result<()> {
    println!("::covers ipv4 tcp");
    let node = Node::new(&TUTORIAL)?;
    let weir = node.start("ubuntu0")?;
    let before = node.ipvsadm()?;
    node.write(
        "nginx-clusterip.yaml",
        "kind: Service\nmetadata: {name: [\n",
    )?;
    node.until("status has a finding", || {
        Ok(node
            .weir(&["status"])?
            .stdout
            .contains("nginx-clusterip.yaml"))
    })?;
    assert_eq!(node.ipvsadm()?, before, "{}", weir.log());
    std::fs::remove_file(node.manifests().join("nginx-nodeport.yaml"))?;
    node.until("other files still count", || {
        Ok(!node
            .ipvsadm()?
            .iter()
            .any(|line| line.contains("10.111.189.98")))
    })?;
    assert!(
        node.ipvsadm()?
            .iter()
            .any(|line| line.contains("10.105.110.237"))
    );
    Ok(())
}

#[test]
fn manifests_that_cannot_be_read_stop_the_start() -> Result<()> {
    let node = Node::new(&[("bad.yaml", "a: [")])?;
    let mut weir = node.spawn("ubuntu0", &[])?;
    assert_eq!(weir.wait()?.code(), Some(2), "{}", weir.log());
    assert!(weir.log().contains("bad.yaml"), "{}", weir.log());
    Ok(())
}
