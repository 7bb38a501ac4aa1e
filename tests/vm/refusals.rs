//! When weir cannot work it says why, what to do about it, and how it ended.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use crate::node::{Node, Result, TUTORIAL, pause, said};

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
fn a_log_that_cannot_be_written_stops_nothing() -> Result<()> {
    println!("::covers ipv4 tcp");
    for log in ["/dev/full", "an unread pipe"] {
        let node = Node::new(&TUTORIAL)?;
        // The other end of the pipe is kept and never read.
        let (reader, stderr) = if log == "/dev/full" {
            (None, Stdio::from(File::options().write(true).open(log)?))
        } else {
            let (reader, writer) = std::io::pipe()?;
            (Some(reader), Stdio::from(writer))
        };
        let mut command = node.command(&["run", "--node-name", "ubuntu0", "--log-level", "trace"]);
        command
            .arg("--manifests")
            .arg(node.manifests())
            .stderr(stderr)
            .stdin(Stdio::null());
        let mut child = command.spawn()?;
        node.until("weir has converged", || {
            Ok(node.weir(&["status", "--brief"])?.code == 0)
        })?;
        for _ in 0..5 {
            std::fs::remove_file(node.manifests().join("nginx-nodeport.yaml"))?;
            let rendered = node.rendered("ubuntu0")?;
            node.until("the kernel follows", || Ok(node.ipvsadm()? == rendered))?;
            node.write("nginx-nodeport.yaml", TUTORIAL[2].1)?;
            let rendered = node.rendered("ubuntu0")?;
            node.until("the kernel follows", || Ok(node.ipvsadm()? == rendered))?;
        }
        node.ok("kill", [child.id().to_string()])?;
        let mut status = None;
        node.until("weir ends", || {
            status = child.try_wait()?;
            Ok(status.is_some())
        })?;
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{log}");
        drop(reader);
    }
    Ok(())
}

#[test]
fn a_pipe_among_the_manifests_holds_up_nothing() -> Result<()> {
    let node = Node::new(&TUTORIAL)?;
    node.ok("mkfifo", [node.manifests().join("pipe.yaml")])?;
    let mut weir = node.start("ubuntu0")?;
    node.ok("mkfifo", [node.manifests().join("another.yaml")])?;
    std::fs::remove_file(node.manifests().join("nginx-nodeport.yaml"))?;
    let rendered = node.rendered("ubuntu0")?;
    node.until("the kernel follows", || Ok(node.ipvsadm()? == rendered))?;
    assert_eq!(weir.terminate()?.code(), Some(0), "{}", weir.log());
    Ok(())
}

#[test]
fn a_manifest_that_is_being_written_is_read_when_it_is_whole() -> Result<()> {
    println!("::covers ipv4 tcp");
    let node = Node::new(&TUTORIAL)?;
    let _weir = node.start("ubuntu0")?;
    let before = node.ipvsadm()?;
    // As a program does that writes in place, a piece at a time. No piece is late enough to look like the end.
    let text = TUTORIAL[1].1;
    let mut file = File::create(node.manifests().join(TUTORIAL[1].0))?;
    for piece in text.as_bytes().chunks(text.len() / 12) {
        file.write_all(piece)?;
        assert_eq!(node.ipvsadm()?, before);
        pause(Duration::from_millis(100));
    }
    drop(file);
    pause(Duration::from_millis(700));
    assert_eq!(node.ipvsadm()?, before);
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
