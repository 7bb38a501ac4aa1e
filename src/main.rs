//! weir: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use weir::cli::{Cli, Command};
use weir::commands::{self, Exit, Failure, Outcome};

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(Failure { exit, error }) => {
            commands::say(&format!("weir: {error:#}"));
            exit.into()
        }
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Run(args) => commands::run::run(args),
        Command::Status(args) => commands::status::status(args),
        Command::Render(args) => commands::render::render(args),
        Command::Diff(args) => commands::diff::diff(args),
        Command::Cleanup(args) => commands::cleanup::cleanup(args),
        Command::Version => {
            commands::print(&format!("weir {}\n", env!("CARGO_PKG_VERSION")))?;
            Ok(Exit::Fine)
        }
    }
}
