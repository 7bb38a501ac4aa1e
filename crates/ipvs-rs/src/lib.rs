//! IPVS, the Linux kernel's layer 4 load balancer, over generic netlink.
//!
//! IPVS (IP Virtual Server) balances TCP, UDP and SCTP inside the kernel. It keeps *virtual servers*: an address, a port and a
//! protocol that clients connect to, or a firewall mark that their packets carry. Under each virtual server are *real
//! servers*, among which its *scheduler* picks one for every new connection; a table of connections keeps the rest of the
//! packets on the same one. A *forwarding method* says how packets get there: by address translation (*masquerade*), by
//! *direct routing* to the server's MAC address, or through a *tunnel*. *Persistence* sends all connections of a client to one
//! real server for a while. A real server of weight 0 keeps its connections and gets no new ones. All of it belongs to a
//! network namespace and outlives the program that set it. The kernel headers say *service* for a virtual server and
//! *destination* for a real server; the `ipvsadm` program does by hand what this crate does by calls, and is not needed.
//!
//! ```no_run
//! use ipvs::{
//!     Client, Protocol, RealServerConfig, RealServerKey, Scheduler, VirtualServerConfig,
//!     VirtualServerKey, Weight,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::open()?;
//! let web = VirtualServerKey::Address {
//!     address: "192.0.2.1".parse()?,
//!     port: 80,
//!     protocol: Protocol::Tcp,
//! };
//! // ipvsadm -A -t 192.0.2.1:80 -s rr
//! client.create_virtual_server(web, VirtualServerConfig::new(Scheduler::RoundRobin))?;
//! // ipvsadm -a -t 192.0.2.1:80 -r 198.51.100.1:8080 -m -w 1
//! let behind = RealServerKey {
//!     address: "198.51.100.1".parse()?,
//!     port: 8080,
//! };
//! client.create_real_server(web, behind, RealServerConfig::masquerade(Weight::ONE))?;
//! for server in client.virtual_servers()? {
//!     println!("{} {}", server.key, server.stats.connections);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Parts
//!
//! - [`Client`] asks and changes; [`Client::apply`] takes thousands of changes at once and tells of each what became of it.
//! - [`proc`] reads weights and connections of every real server in one go.
//! - [`message`] is the codec alone: values and bytes, no sockets.
//! - [`netlink`] is the transport alone: blocking, batching, with a deadline, for any netlink protocol.
//!
//! # Kernels
//!
//! Tested on Linux 6.1 and 6.12. Everything should work since 3.18; tunnels by GUE and GRE since 5.3, 64-bit counters since 4.1
//! (before that the 32-bit ones are told). Changing anything needs `CAP_NET_ADMIN` in the user namespace of the network
//! namespace.
//!
//! IPv4 real servers are refused (`EINVAL`) in a network namespace where no device ever had an address, the loopback included:
//! without a local routing table the kernel finds no address to be unicast.
//!
//! Load the modules of the schedulers you use at start (`modprobe ip_vs_lblc`). The kernel loads them itself when one is asked
//! for, but for `lblc` and `lblcr` it hangs for good, and all of IPVS with it, if a network namespace is torn down at that
//! moment (seen on 6.1 and 6.12): the request holds `__ip_vs_mutex` and waits for the module, the module's initialisation waits for
//! `pernet_ops_rwsem`, and the tearing down holds that and waits for the mutex.
//!
//! # What is missing
//!
//! Connections (`/proc/net/ip_vs_conn`), the sysctls under `net.ipv4.vs`, the old `setsockopt` interface, and notifications,
//! which the kernel does not have.

#![deny(missing_docs)]

pub mod client;
pub mod daemon;
pub mod error;
pub mod family;
pub mod forward_method;
pub mod info;
pub mod message;
pub mod netlink;
pub mod proc;
pub mod real_server;
pub mod scheduler;
pub mod stats;
pub mod timeouts;
pub mod virtual_server;

pub use client::{Client, Command};
pub use daemon::{Daemon, DaemonRole, Multicast};
pub use error::{Error, RequestKind};
pub use family::{Family, Protocol};
pub use forward_method::{ForwardMethod, Tunnel};
pub use info::{Info, Version};
pub use real_server::{
    Connections, RealServer, RealServerConfig, RealServerKey, Thresholds, Weight,
};
pub use scheduler::Scheduler;
pub use stats::{Rates, Stats};
pub use timeouts::Timeouts;
pub use virtual_server::{
    Flags, Netmask, Persistence, VirtualServer, VirtualServerConfig, VirtualServerKey,
};
