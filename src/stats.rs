//! The reader of counters: a thread of its own that only reads, at most once a second, and hands out the last reading.
//!
//! Programming never waits for it, and however many ask, the kernel is read once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipvs::proc::{Entry, ProcError};
use tokio::sync::{mpsc, oneshot};

/// How old a reading may be before it is made anew.
const FRESH: Duration = Duration::from_secs(1);

/// What was read: the kernel's table, or why there is none.
pub type Reading = Result<Arc<Vec<Entry>>, Arc<ProcError>>;

/// Asks for a reading.
pub type Requests = mpsc::Sender<oneshot::Sender<Reading>>;

/// Answers requests until nobody can ask any more. The thread's network namespace is the one it reads.
pub fn run(mut requests: mpsc::Receiver<oneshot::Sender<Reading>>) {
    let mut last: Option<(Instant, Reading)> = None;
    while let Some(reply) = requests.blocking_recv() {
        let reading = match &last {
            Some((time, reading)) if time.elapsed() < FRESH => reading.clone(),
            _ => {
                let reading = read();
                last = Some((now(), reading.clone()));
                reading
            }
        };
        // Whoever asked may have gone; then nobody needs the answer.
        drop(reply.send(reading));
    }
}

fn read() -> Reading {
    let text = ipvs::proc::read().map_err(Arc::new)?;
    ipvs::proc::parse(&text)
        .map(Arc::new)
        .map_err(|error| Arc::new(ProcError::Parse(error)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the age of a reading is this thread's own business"
)]
fn now() -> Instant {
    Instant::now()
}
