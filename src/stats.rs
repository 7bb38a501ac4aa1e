//! The reader of counters: a thread of its own that only reads, at most once a second, and hands out the last reading.
//!
//! Programming never waits for it, and however many ask, the kernel is read once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipvs::Client;
use ipvs::proc::{Entry, Subject};
use tokio::sync::{mpsc, oneshot};

/// How old a reading may be before it is made anew.
const FRESH: Duration = Duration::from_secs(1);

/// What was read: the kernel's table, or why there is none.
pub type Reading = Result<Arc<Vec<Entry>>, Arc<ipvs::Error>>;

/// Asks for a reading.
pub type Requests = mpsc::Sender<oneshot::Sender<Reading>>;

/// Answers requests until nobody can ask any more. The thread's network namespace is the one it reads.
pub fn run(mut requests: mpsc::Receiver<oneshot::Sender<Reading>>) {
    let mut last: Option<(Instant, Reading)> = None;
    while let Some(reply) = requests.blocking_recv() {
        let reading = match &last {
            Some((time, reading)) if time.elapsed() < FRESH => reading.clone(),
            _ => {
                let reading = Client::open()
                    .and_then(|mut client| table(&mut client))
                    .map(Arc::new)
                    .map_err(Arc::new);
                last = Some((now(), reading.clone()));
                reading
            }
        };
        // Whoever asked may have gone; then nobody needs the answer.
        drop(reply.send(reading));
    }
}

/// Everything that IPVS holds here. `/proc/net/ip_vs` alone would not do: it leaves virtual servers out when other network
/// namespaces have some too.
///
/// # Errors
/// When any part could not be read.
pub fn table(client: &mut Client) -> Result<Vec<Entry>, ipvs::Error> {
    let servers = client.virtual_servers()?;
    let mut real_servers = client.real_servers_of_all()?;
    let entries = servers.into_iter().filter_map(|server| {
        Some(Entry {
            subject: Subject::Address(server.key),
            scheduler: server.config.scheduler,
            one_packet: server.config.flags.one_packet,
            // Its unit is /proc's own, and status does not show it.
            persistence: None,
            // One that is not there was deleted between the two reads.
            real_servers: real_servers.remove(&server.key)?,
        })
    });
    Ok(entries.collect())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the age of a reading is this thread's own business"
)]
fn now() -> Instant {
    Instant::now()
}
