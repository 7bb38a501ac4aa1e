//! The control socket, `weir.sock` in the run directory: one word in, one JSON document out.
//!
//! `status` answers with a [`StatusDocument`], `desired` with a [`RenderDocument`]. The socket is readable by its owner only.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use crate::document::RenderDocument;
use crate::reconcile::{Input, Snapshot};
use crate::stats::Requests;
use crate::status::{Context, State, StatusDocument};

const SOCKET: &str = "weir.sock";
/// The longest exchange, on either side.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest question.
const LONGEST_QUESTION: u64 = 64;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A [`StatusDocument`].
    Status,
    /// A [`RenderDocument`].
    Desired,
}

impl Question {
    fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Desired => "desired",
        }
    }
}

/// Why a running weir could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no weir runs with --run-dir {run_dir}")]
    Down {
        /// The run directory.
        run_dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket may not be opened.
    #[error("cannot open {path}; ask as the user that runs weir, usually root")]
    Permission {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It listens and does not answer.
    #[error("weir does not answer on {path}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered something else.
    #[error("weir answered on {path} what this version of the program does not understand")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Asks the weir that runs with this run directory.
///
/// # Errors
/// When none runs, or it does not answer within ten seconds.
pub fn ask<T: DeserializeOwned>(run_dir: &Path, question: Question) -> Result<T, AskError> {
    let path = run_dir.join(SOCKET);
    let stream = match BlockingStream::connect(&path) {
        Ok(stream) => stream,
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            return Err(AskError::Permission { path, source });
        }
        Err(source) => {
            let run_dir = run_dir.to_owned();
            return Err(AskError::Down { run_dir, source });
        }
    };
    let answer = exchange(stream, question).map_err(|source| AskError::Silent {
        path: path.clone(),
        source,
    })?;
    serde_json::from_slice(&answer).map_err(|source| AskError::Answer { path, source })
}

fn exchange(mut stream: BlockingStream, question: Question) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(question.word().as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// Where the answers come from.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The loop.
    pub inputs: mpsc::Sender<Input>,
    /// The reader of counters.
    pub stats: Requests,
}

/// Opens the socket. Whatever stands under its name is an earlier weir's: the caller holds the lock of the run directory.
///
/// # Errors
/// When it cannot be made.
pub fn listen(run_dir: &Path) -> io::Result<UnixListener> {
    let path = run_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers one client.
pub async fn serve(stream: UnixStream, answers: Answers) {
    match timeout(PATIENCE, answer(stream, answers)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("a client of the control socket got no answer: {error}"),
        Err(_elapsed) => warn!("a client of the control socket was too slow"),
    }
}

async fn answer(mut stream: UnixStream, answers: Answers) -> io::Result<()> {
    let mut question = String::new();
    (&mut stream)
        .take(LONGEST_QUESTION)
        .read_to_string(&mut question)
        .await?;
    let document = match question.trim() {
        "status" => serde_json::to_vec(&status(&answers).await?),
        "desired" => {
            let snapshot = snapshot(&answers).await?;
            serde_json::to_vec(&RenderDocument::new(&snapshot.desired, &snapshot.problems))
        }
        other => {
            return Err(io::Error::other(format!(
                "nobody knows what {other:?} asks"
            )));
        }
    };
    stream
        .write_all(&document.map_err(io::Error::other)?)
        .await?;
    stream.shutdown().await
}

async fn snapshot(answers: &Answers) -> io::Result<Snapshot> {
    let (reply, answer) = oneshot::channel();
    let stopping = || io::Error::other("weir is stopping");
    if answers.inputs.send(Input::Ask(reply)).await.is_err() {
        return Err(stopping());
    }
    answer.await.map_err(|_gone| stopping())
}

async fn status(answers: &Answers) -> io::Result<StatusDocument> {
    let snapshot = snapshot(answers).await?;
    let (reply, reading) = oneshot::channel();
    let stopping = || io::Error::other("weir is stopping");
    if answers.stats.send(reply).await.is_err() {
        return Err(stopping());
    }
    let reading = reading.await.map_err(|_gone| stopping())?;
    let mut reasons = snapshot.reasons;
    let mut state = snapshot.state;
    let entries = match reading {
        Ok(entries) => Some(entries.to_vec()),
        Err(error) => {
            state = State::Degraded;
            reasons.push(crate::error_chain(&*error));
            None
        }
    };
    let context = Context {
        node: &snapshot.node,
        state,
        reasons,
        device: &snapshot.device,
        vips: Some(snapshot.vips.into_iter().collect()),
        last_pass: snapshot.last_pass,
        desired: (snapshot.state != State::Waiting).then_some(&snapshot.desired),
        draining: snapshot.draining,
        problems: &snapshot.problems,
    };
    Ok(StatusDocument::new(context, entries))
}
