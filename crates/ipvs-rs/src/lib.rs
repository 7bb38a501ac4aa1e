//! IPVS, the Linux kernel's layer 4 load balancer, over generic netlink.
//!
//! IPVS keeps *virtual servers* (an address, a port and a protocol, or a firewall mark; the kernel headers say
//! "service") and under each of them *real servers* (the kernel headers say "destination") that its scheduler
//! chooses from. This crate speaks the kernel's netlink interface itself; the `ipvsadm` program is not needed.

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
