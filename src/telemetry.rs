//! How and how much is logged. Logs go to standard error; nothing depends on anybody reading them.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, ParseError};

use crate::cli::{LogArgs, LogFormat};

/// Starts logging.
///
/// # Errors
/// When the level cannot be understood.
pub fn start(args: &LogArgs) -> Result<(), ParseError> {
    // netlink-packet-route warns of statistics blocks that are longer than it knows, on every link of a newer kernel.
    let filter = EnvFilter::builder()
        .parse(&args.log_level)?
        .add_directive("netlink_packet_route=error".parse()?);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
