//! End to end: the real binary on a real kernel, each test in a network namespace of its own, with `ipvsadm` and `ip` as second
//! opinion. Needs root and IPVS; `cargo xtask test --tier vm` provides both.

#![expect(
    clippy::unwrap_used,
    clippy::unused_self,
    clippy::print_stdout,
    reason = "helpers of tests may fail as tests do, a node's programs run in the caller's namespace, and the runner reads what is covered"
)]

mod node;

mod beside_others;
mod converge;
mod refusals;
mod serve;
