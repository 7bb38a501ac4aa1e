//! `cargo xtask`: every automation of weir. See the commands' help.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a tool for developers: it prints, measures time, reads cargo's environment and copies the output of what it runs"
)]

mod check;
mod demo;
mod project;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Every automation of weir",
    version
)]
enum Xtask {
    /// Everything that needs no VM: format, lints, documentation, dependencies, tests
    Check,
    /// All tests, those in VMs as well
    Test(test::TestArguments),
    /// The tutorial's cluster with weir on its nodes: shows what weir does and checks it, in a VM
    Demo(demo::DemoArguments),
    /// A virtual machine with the kernels that we test with
    #[command(subcommand)]
    Vm(vm::VmCommand),
}

fn main() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::Check => test::TestArguments::for_check().run(),
        Xtask::Test(arguments) => arguments.run(),
        Xtask::Demo(arguments) => arguments.run(),
        Xtask::Vm(command) => command.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(2)
    })
}
