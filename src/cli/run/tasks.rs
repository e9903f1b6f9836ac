//! What goes on beside the command, each in a task that tells the one loop: the stream, the fetching of
//! values, the command of `exec:`.

use std::process::ExitStatus;

use tokio::{
    sync::mpsc::Sender,
    task::{AbortHandle, JoinHandle},
};

use super::{changes::Fact, child::Child, say};
use crate::{
    client::{ApiClient, ClientError, LogFollower, Pause, ResolvedValues},
    domain::{Cursor, Log, Owner, SecretName},
};

/// What a task has found.
#[derive(Debug)]
pub(super) enum Told {
    /// The log has an event at this cursor.
    Event(Cursor, Fact),
    /// The values, or why there are none.
    Fetched(Fetched),
    /// The log's place to follow on from, and what stands there.
    Anew(Cursor, Fetched),
    /// The log has lost the cursor.
    Gone,
    /// The command of `exec:` has ended.
    Done(std::io::Result<ExitStatus>),
}

#[derive(Debug)]
pub(super) enum Fetched {
    Values(ResolvedValues),
    /// One of the names is not there.
    Missing,
    /// The log does not hold the cursor that they should reach.
    Gone,
}

/// The service and what is asked of it.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) client: ApiClient,
    pub(super) owner: Owner,
    pub(super) names: Vec<SecretName>,
    pub(super) told: Sender<Told>,
}

impl Asker {
    /// Tells every event from here on until the log has lost the cursor.
    pub(super) fn follow(&self, mut trail: LogFollower) -> AbortHandle {
        let told = self.told.clone();
        let task = tokio::spawn(async move {
            let mut trouble = Trouble::default();
            loop {
                let told_one = match trail.next().await {
                    Ok(passed) => {
                        trouble.over();
                        let fact = passed.event.and_then(|event| Fact::read(&event.body));
                        let Some(fact) = fact else { continue };
                        Told::Event(passed.cursor, fact)
                    }
                    Err(ClientError::Gone { .. }) => Told::Gone,
                    Err(error) => {
                        trouble.wait("following the changes", &error).await;
                        continue;
                    }
                };
                let over = matches!(told_one, Told::Gone);
                if told.send(told_one).await.is_err() || over {
                    return;
                }
            }
        });
        task.abort_handle()
    }

    /// Tells the values, once, however long it takes.
    pub(super) fn fetch(&self, min_cursor: Option<Cursor>) -> JoinHandle<()> {
        let asker = self.clone();
        tokio::spawn(async move {
            let fetched = asker.values(min_cursor).await;
            // The loop is over, and the command with it.
            let _ = asker.told.send(Told::Fetched(fetched)).await;
        })
    }

    /// Tells where to follow on from. The head comes first: what changes after it is in the stream.
    pub(super) fn begin_anew(&self) -> JoinHandle<()> {
        let asker = self.clone();
        tokio::spawn(async move {
            let mut trouble = Trouble::default();
            let head = loop {
                match asker.client.head(Log::Changes).await {
                    Ok(head) => break head.cursor(),
                    Err(error) => trouble.wait("reading the log's head", &error).await,
                }
            };
            let fetched = asker.values(None).await;
            let _ = asker.told.send(Told::Anew(head, fetched)).await;
        })
    }

    /// Tells the end of a process.
    pub(super) fn wait(&self, mut child: Child) -> JoinHandle<()> {
        let told = self.told.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            let _ = told.send(Told::Done(status)).await;
        })
    }

    async fn values(&self, min_cursor: Option<Cursor>) -> Fetched {
        let mut trouble = Trouble::default();
        loop {
            let resolved = self
                .client
                .resolve(Some(&self.owner), &self.names, min_cursor);
            match resolved.await {
                Ok(values) => return Fetched::Values(values),
                Err(error) if error.is_not_found() => return Fetched::Missing,
                Err(ClientError::Gone { .. }) => return Fetched::Gone,
                Err(error) => trouble.wait("fetching the values", &error).await,
            }
        }
    }
}

/// Errors that are waited out: the command runs on with what it has. Each kind is said once.
#[derive(Debug, Default)]
struct Trouble {
    pause: Pause,
    said: Option<String>,
}

impl Trouble {
    async fn wait(&mut self, doing: &str, error: &ClientError) {
        let text = error.to_string();
        if self.said.as_ref() != Some(&text) {
            say(&format!(
                "{doing}: {text}; the command keeps its values, and it is tried again"
            ));
            self.said = Some(text);
        }
        self.pause.wait().await;
    }

    fn over(&mut self) {
        self.pause.reset();
        self.said = None;
    }
}
