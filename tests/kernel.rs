//! The contract of `tests/support/contract.rs` on Linux. Needs root and the modules `ip_vs`, `dummy` and `bridge`; each node is a
//! network namespace of its own, which its thread enters and which goes with it. The program `ip` plays the part of somebody else.
//!
//! Every family and protocol that a case has covered is printed as `::covers ipv4 tcp`.

use std::net::IpAddr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use weir::dataplane::kernel::LinuxKernel;

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod support;

#[path = "support/contract.rs"]
mod contract;

use contract::{Bench, Combination, Outcome};

struct Namespace(LinuxKernel);

impl Bench for Namespace {
    type Kernel = LinuxKernel;

    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("no network namespace, which needs root: {error}"))?;
        // On a node without any IPv4 address Linux takes no IPv4 real server: it has no local routing table, and what is in none
        // counts as broadcast (`__inet_dev_addr_type`, EINVAL in `ip_vs_new_dest`; seen on 6.12).
        ip(&["link", "set", "lo", "up"])?;
        Ok(Self(LinuxKernel::open()?))
    }

    fn kernel(&mut self) -> &mut LinuxKernel {
        &mut self.0
    }

    fn into_kernel(self) -> LinuxKernel {
        self.0
    }

    fn add_link(&mut self, name: &str, kind: &str) -> Outcome {
        ip(&["link", "add", name, "type", kind])
    }

    fn set_down(&mut self, name: &str) -> Outcome {
        ip(&["link", "set", name, "down"])
    }

    fn add_plain_address(&mut self, name: &str, address: IpAddr) -> Outcome {
        let length = if address.is_ipv4() { 32 } else { 128 };
        ip(&[
            "address",
            "add",
            &format!("{address}/{length}"),
            "dev",
            name,
        ])
    }

    #[expect(
        clippy::print_stdout,
        reason = "whoever runs the suite counts these lines"
    )]
    fn covered(with: Combination) {
        let line = format!("::covers {} {}", with.family, with.protocol);
        println!("{}", line.to_lowercase());
    }
}

/// Runs `ip` in the network namespace of this thread.
fn ip(arguments: &[&str]) -> Outcome {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {said}", arguments.join(" ")).into())
}

contract::suite!(Namespace);
