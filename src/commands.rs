//! The commands, a file each, and how they end.

use std::io::{self, Write as _};

pub mod cleanup;
pub mod diff;
pub mod host;
pub mod render;
pub mod run;
pub mod status;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All is well.
    Fine,
    /// There is a difference, or something is not healthy.
    Different,
    /// The arguments cannot be, or the command failed.
    Failed,
    /// weir does not answer.
    NoAnswer,
    /// The kernel refused: no IPVS, no permission, a lock that is taken.
    Refused,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Different => 1,
            Exit::Failed => 2,
            Exit::NoAnswer => 3,
            Exit::Refused => 4,
        })
    }
}

/// An error of a command, with the exit code that it asks for.
#[derive(Debug)]
pub struct Failure {
    /// How the command ends.
    pub exit: Exit,
    /// What went wrong.
    pub error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::Failed,
            error: error.into(),
        }
    }
}

impl Failure {
    /// The kernel refused.
    pub fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Refused,
            error: error.into(),
        }
    }
}

/// How a command ends if nothing unforeseen happens.
pub type Outcome = Result<Exit, Failure>;

/// Prints data to standard output. A reader that has gone is fine.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(io::Error::new(
            error.kind(),
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Prints a message to standard error, where it can be.
pub fn say(text: &str) {
    // There is nowhere left to complain to if standard error is gone.
    drop(writeln!(io::stderr().lock(), "{text}"));
}
