//! How and how much is logged. Logs go to standard error; nothing depends on anybody reading them.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};

use crate::cli::{LogArgs, LogFormat};

/// A `--log-level` that cannot be.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log level {level:?}, from --log-level or WEIR_LOG, is none: error, warn, info, debug or trace, also per module, such as info,weir::reconcile=debug"
)]
pub struct LogLevelError {
    /// What was given.
    level: String,
    /// The cause, where there is more to say.
    #[source]
    source: Option<ParseError>,
}

/// Starts logging.
///
/// # Errors
/// When the level cannot be understood.
pub fn start(args: &LogArgs) -> Result<(), LogLevelError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&args.log_level)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, LogLevelError> {
    let failed = |source| LogLevelError {
        level: level.to_owned(),
        source,
    };
    // The library takes a word that is no level for the name of a module, and then logs nothing of any other.
    let is_unknown = |word: &str| !word.contains('=') && word.parse::<LevelFilter>().is_err();
    if level.split(',').any(|word| is_unknown(word.trim())) {
        return Err(failed(None));
    }
    let parse_failed = |source| failed(Some(source));
    // netlink-packet-route warns of statistics blocks that are longer than it knows, on every link of a newer kernel.
    Ok(EnvFilter::builder()
        .parse(level)
        .map_err(parse_failed)?
        .add_directive("netlink_packet_route=error".parse().map_err(parse_failed)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in ["info", "DEBUG", "off", "warn,weir::reconcile=debug"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "info,loud", "weir=loud", "=x="] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
