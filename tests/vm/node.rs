//! A node of its own for each test: a network namespace, a run directory, and the programs that are second opinions.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The longest that anything in these tests may take under emulation.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The tutorial, as in `examples/tutorial`.
pub(crate) const TUTORIAL: [(&str, &str); 5] = [
    (
        "nodes.yaml",
        include_str!("../../examples/tutorial/nodes.yaml"),
    ),
    (
        "nginx-clusterip.yaml",
        include_str!("../../examples/tutorial/nginx-clusterip.yaml"),
    ),
    (
        "nginx-nodeport.yaml",
        include_str!("../../examples/tutorial/nginx-nodeport.yaml"),
    ),
    (
        "external-name.yaml",
        include_str!("../../examples/tutorial/external-name.yaml"),
    ),
    (
        "external-mysql.yaml",
        include_str!("../../examples/tutorial/external-mysql.yaml"),
    ),
];

/// A cluster as a real API server returned it, dual stack, with all protocols.
pub(crate) const CLUSTER: [(&str, &str); 1] =
    [("cluster.yaml", include_str!("../fixtures/cluster.yaml"))];

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A network namespace with a directory of manifests and a run directory. The calling thread is in that namespace from then on,
/// and so is every program it starts.
#[derive(Debug)]
pub(crate) struct Node {
    directory: tempfile::TempDir,
    namespaces: Vec<String>,
    children: Vec<Child>,
}

/// A running `weir run`.
#[derive(Debug)]
pub(crate) struct Weir {
    child: Child,
    log: PathBuf,
}

pub(crate) fn weir_binary() -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "where the binary lies is told by whoever runs the tests"
    )]
    std::env::var_os("WEIR_BIN").map_or_else(|| env!("CARGO_BIN_EXE_weir").into(), PathBuf::from)
}

impl Node {
    pub(crate) fn new(manifests: &[(&str, &str)]) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let node = Self {
            directory: tempfile::tempdir()?,
            namespaces: Vec::new(),
            children: Vec::new(),
        };
        std::fs::create_dir(node.manifests())?;
        for (name, text) in manifests {
            node.write(name, text)?;
        }
        node.ok("ip", ["link", "set", "lo", "up"])?;
        Ok(node)
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Writes a manifest as an editor does: beside it, then renamed.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let temporary = self.directory.path().join("new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(temporary, self.manifests().join(name))?;
        Ok(())
    }

    /// Runs a program to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Said> {
        said(Command::new(program.as_ref()).args(args))
    }

    /// Runs a program that must succeed, and gives its output.
    pub(crate) fn ok<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        let args: Vec<_> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        let said = self.run(program, &args)?;
        if said.code == 0 {
            Ok(said.stdout)
        } else {
            Err(format!(
                "{program} {args:?} ended with {}: {}{}",
                said.code, said.stdout, said.stderr
            )
            .into())
        }
    }

    /// Runs lines of a shell that must succeed. It is bash, because busybox takes its own `ip` before the real one.
    pub(crate) fn sh(&self, line: &str) -> Result<String> {
        self.ok("bash", ["-ec", line])
    }

    /// Runs weir to its end, with this node's run directory where the command takes one.
    pub(crate) fn weir(&self, args: &[&str]) -> Result<Said> {
        said(&mut self.command(args))
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(weir_binary());
        command.args(args).env_remove("NODE_NAME");
        if args
            .first()
            .is_some_and(|verb| ["run", "status", "diff", "cleanup"].contains(verb))
        {
            command.arg("--run-dir").arg(self.run_dir());
        }
        command
    }

    /// Starts `weir run` on this node's manifests and waits until it has converged.
    pub(crate) fn start(&self, node_name: &str) -> Result<Weir> {
        self.start_with(node_name, &[])
    }

    /// Starts `weir run` with more arguments.
    pub(crate) fn start_with(&self, node_name: &str, more: &[&str]) -> Result<Weir> {
        let weir = self.spawn(node_name, more)?;
        self.until("weir has converged", || {
            Ok(self.weir(&["status", "--brief"])?.code == 0)
        })
        .map_err(|error| format!("{error}; weir said: {}", weir.log()))?;
        Ok(weir)
    }

    pub(crate) fn spawn(&self, node_name: &str, more: &[&str]) -> Result<Weir> {
        let log = self.directory.path().join("weir.log");
        let child = self
            .command(&["run", "--node-name", node_name])
            .args(more)
            .arg("--manifests")
            .arg(self.manifests())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Weir { child, log })
    }

    /// Asks again until it is so, or the deadline passes.
    pub(crate) fn until(
        &self,
        what: &str,
        mut so: impl FnMut() -> Result<bool>,
    ) -> Result<Duration> {
        let started = now();
        while !so()? {
            if started.elapsed() > DEADLINE {
                return Err(format!("not within {} s: {what}", DEADLINE.as_secs()).into());
            }
            pause(Duration::from_millis(20));
        }
        Ok(started.elapsed())
    }

    /// What IPVS holds, as `ipvsadm -Sn` tells it, sorted by bytes.
    pub(crate) fn ipvsadm(&self) -> Result<Vec<String>> {
        Ok(sorted(&self.ok("ipvsadm", ["-Sn"])?))
    }

    /// What weir would make of this node's manifests, sorted by bytes.
    pub(crate) fn rendered(&self, node_name: &str) -> Result<Vec<String>> {
        let manifests = self.manifests();
        let manifests = manifests.to_str().ok_or("the path is no text")?;
        let said = self.weir(&[
            "render",
            "-o",
            "ipvsadm",
            "--node-name",
            node_name,
            "--manifests",
            manifests,
        ])?;
        Ok(sorted(&said.stdout))
    }

    /// Makes a pod: a namespace of this name with a link to this node and this address, and a web server on port 80 that answers
    /// with the pod's name.
    pub(crate) fn pod(&mut self, name: &str, address: &str, gateway: &str) -> Result<()> {
        let bits = if address.contains(':') { 128 } else { 32 };
        let nodad = if bits == 128 { "nodad" } else { "" };
        let link = format!("v-{name}");
        self.sh(&format!("ip netns add {name}"))?;
        self.namespaces.push(name.to_owned());
        self.sh(&format!(
            "ip link add {link} type veth peer name eth0 netns {name}
             ip link set {link} up
             ip addr add {gateway}/{bits} dev {link} {nodad} scope link 2>/dev/null || ip addr add {gateway}/{bits} dev {link} {nodad}
             ip -n {name} link set lo up
             ip -n {name} link set eth0 up
             ip -n {name} addr add {address}/{bits} dev eth0 {nodad}
             ip -n {name} route add {gateway} dev eth0
             ip -n {name} route add default via {gateway} dev eth0
             ip route add {address} dev {link}"
        ))?;
        let home = self.directory.path().join(name);
        std::fs::create_dir(&home)?;
        std::fs::write(home.join("index.html"), format!("{name}\n"))?;
        let server = Command::new("ip")
            .args([
                "netns", "exec", name, "busybox", "httpd", "-f", "-p", "80", "-h",
            ])
            .arg(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.children.push(server);
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        for name in &self.namespaces {
            drop(said(Command::new("ip").args(["netns", "delete", name])));
        }
    }
}

impl Weir {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a machine that runs out of memory does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as an operator does.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus> {
        let id = self.child.id().to_string();
        said(Command::new("kill").arg(id))?;
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let started = now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > DEADLINE {
                return Err("weir does not end".into());
            }
            pause(Duration::from_millis(20));
        }
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn said(command: &mut Command) -> Result<Said> {
    let output = command.stdin(Stdio::null()).output()?;
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

pub(crate) fn sorted(text: &str) -> Vec<String> {
    // ipvsadm pads nothing in -S; what it prints at the end of a line is not part of the rule.
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.sort();
    lines
}

/// Does this on a thread of its own in that namespace.
pub(crate) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(Path::new("/run/netns").join(namespace))?;
    std::thread::scope(|scope| {
        scope
            .spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
                Ok::<_, String>(work())
            })
            .join()
            .unwrap_or_else(|_| Err("the thread panicked".to_owned()))
    })
    .map_err(Into::into)
}

/// One HTTP request; gives the body's text.
pub(crate) fn http_get(address: &str) -> Result<String> {
    use std::io::Write as _;
    let mut stream = TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: weir.test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    Ok(body.trim().to_owned())
}

#[expect(clippy::disallowed_methods, reason = "tests poll to a deadline")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "tests poll to a deadline")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
