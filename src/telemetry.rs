//! How and how much is logged. Logs go to standard error; nothing depends on anybody reading them.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

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

/// How many lines may wait to be written; further ones are dropped.
const WAITING_LINES: usize = 1_024;
/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Writes out what is left when it is dropped, if that does not take long.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct Logging {
    finished: mpsc::Receiver<()>,
    lines: SyncSender<Line>,
}

enum Line {
    Text(Vec<u8>),
    End,
}

impl Drop for Logging {
    fn drop(&mut self) {
        if self.lines.try_send(Line::End).is_ok() {
            // Whether it finished or not, the program ends.
            let _finished = self.finished.recv_timeout(LAST_LINES);
        }
    }
}

/// Starts logging. Lines go to standard error on a thread of their own and are dropped where nobody reads them: a full pipe or disk
/// must not hold up programming.
///
/// # Errors
/// When the level cannot be understood, or there is no thread to be had.
pub fn start(args: &LogArgs) -> anyhow::Result<Logging> {
    let filter = filter(&args.log_level)?;
    let (lines, waiting) = mpsc::sync_channel(WAITING_LINES);
    let (finish, finished) = mpsc::channel();
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&waiting, &finish))?;
    let writer = lines.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || LineWriter(writer.clone()))
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(Logging { finished, lines })
}

fn write_lines(waiting: &mpsc::Receiver<Line>, finish: &mpsc::Sender<()>) {
    while let Ok(Line::Text(line)) = waiting.recv() {
        // There is nowhere to complain to.
        drop(io::stderr().write_all(&line));
    }
    let _heard = finish.send(());
}

/// Hands each line on and never waits.
struct LineWriter(SyncSender<Line>);

impl io::Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line that nobody can take is lost.
        drop(self.0.try_send(Line::Text(line.to_vec())));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
