//! The work beside the command, each piece in a task that reports to the one loop: following the log and
//! fetching values.
//!
//! When the log has lost its place, the loop starts over with a new channel, which is a new generation: what an
//! earlier one still finds out is not heard, and its work ends.

use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::AbortHandle,
};

use super::{changes::EventSummary, say};
use crate::{
    backoff::Backoff,
    client::{ApiClient, ClientError, LONGEST_PAUSE, LogFollower, ResolvedValues},
    domain::{Cursor, ErrorChain, Log, Owner, SecretName},
};

/// What a task has to say.
#[derive(Debug)]
pub(super) enum TaskReport {
    /// The log holds an event at this cursor.
    Event(Cursor, EventSummary),
    /// The log cannot be followed any further from its cursor, and why.
    Lost(&'static str),
    /// The values that were asked for.
    Fetched(FetchOutcome),
    /// Where to follow the log from now on, and the values there.
    StartedOver(Cursor, FetchOutcome),
}

/// How many reports wait for the loop; when there are more, the stream waits too.
const REPORTS: usize = 64;

/// The channel of one generation of tasks.
pub(super) fn generation() -> (Sender<TaskReport>, Receiver<TaskReport>) {
    mpsc::channel(REPORTS)
}

/// What came of fetching values.
#[derive(Debug)]
pub(super) enum FetchOutcome {
    Values(ResolvedValues),
    /// At least one of the names has no secret.
    Missing,
    /// The log does not hold the cursor that the values should reach.
    Gone,
}

/// Why [`TaskReport::Lost`] and [`FetchOutcome::Gone`] come after a restored backup, or a long time away.
pub(super) const GONE: &str = "the log no longer holds this place";
const UNREADABLE: &str = "an event of the log cannot be read";

/// Starts the tasks of one workload, in one generation.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    pub(super) client: ApiClient,
    pub(super) owner: Owner,
    pub(super) names: Vec<SecretName>,
    pub(super) reports: Sender<TaskReport>,
}

impl Tasks {
    /// Reports every event from here on, until the follower is lost.
    pub(super) fn follow(&self, mut follower: LogFollower) -> AbortHandle {
        let tasks = self.clone();
        let task = tokio::spawn(async move {
            let mut retry = Retry::new();
            loop {
                let report = match follower.next().await {
                    Ok(item) => {
                        retry = Retry::new();
                        // Without an event, the service only says how far it has read.
                        let Some(event) = item.event else { continue };
                        match EventSummary::read(&event.body) {
                            Some(event) => TaskReport::Event(item.cursor, event),
                            // It may be a change: the values are fetched to find out.
                            None => TaskReport::Lost(UNREADABLE),
                        }
                    }
                    Err(ClientError::Gone { .. }) => TaskReport::Lost(GONE),
                    Err(error) => {
                        retry.wait("following the log", &error).await;
                        continue;
                    }
                };
                let lost = matches!(report, TaskReport::Lost(_));
                if tasks.reports.send(report).await.is_err() || lost {
                    return;
                }
            }
        });
        task.abort_handle()
    }

    /// Reports the values once, however long it takes.
    pub(super) fn fetch(&self, min_cursor: Option<Cursor>) {
        let tasks = self.clone();
        self.report(async move { TaskReport::Fetched(tasks.values(min_cursor).await) });
    }

    /// Reports where to follow the log from now on. The head is read first, so that a change after it is in
    /// the stream.
    pub(super) fn start_over(&self) {
        let tasks = self.clone();
        self.report(async move {
            let mut retry = Retry::new();
            let head = loop {
                match tasks.client.head(Log::Changes).await {
                    Ok(head) => break head.cursor(),
                    Err(error) => retry.wait("reading the log's head", &error).await,
                }
            };
            TaskReport::StartedOver(head, tasks.values(None).await)
        });
    }

    async fn values(&self, min_cursor: Option<Cursor>) -> FetchOutcome {
        let mut retry = Retry::new();
        loop {
            let owner = Some(&self.owner);
            match self.client.resolve(owner, &self.names, min_cursor).await {
                Ok(values) => return FetchOutcome::Values(values),
                Err(error) if error.is_not_found() => return FetchOutcome::Missing,
                Err(ClientError::Gone { .. }) => return FetchOutcome::Gone,
                Err(error) => retry.wait("fetching the values", &error).await,
            }
        }
    }

    /// Starts a piece of work and reports what comes of it, as long as anybody listens.
    fn report(&self, work: impl Future<Output = TaskReport> + Send + 'static) {
        let reports = self.reports.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reports.closed() => {}
                // An error means that nobody listens any more.
                report = work => drop(reports.send(report).await),
            }
        });
    }
}

/// Waits after an error: the command runs on with the values it has. Says each kind of error once.
#[derive(Debug)]
struct Retry {
    backoff: Backoff,
    said: Option<String>,
}

impl Retry {
    fn new() -> Self {
        Self {
            backoff: Backoff::new(LONGEST_PAUSE),
            said: None,
        }
    }

    async fn wait(&mut self, doing: &str, error: &ClientError) {
        let kind = error.to_string();
        if self.said.as_ref() != Some(&kind) {
            let text = ErrorChain(error);
            say(&format!(
                "{doing}: {text}; the command keeps its values, and rekey tries again"
            ));
            self.said = Some(kind);
        }
        self.backoff.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, sync::mpsc};

    use super::*;
    use crate::client::Plaintext;

    #[tokio::test]
    async fn an_event_that_cannot_be_read_is_not_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                      id: 1-1\n\nid: 1-2\nevent: secret.updated\ndata: {\"name\":\"A\"}\n\n";
        let served = tokio::spawn(async move {
            let (mut link, _) = listener.accept().await.unwrap();
            link.write_all(answer.as_bytes()).await.unwrap();
            link
        });
        let token = SecretString::from("rekey_token".to_owned());
        let client = ApiClient::new(&url, token, Plaintext::Refused).unwrap();
        let (reports, mut heard) = mpsc::channel(1);
        let tasks = Tasks {
            client: client.clone(),
            owner: Owner::parse("alice").unwrap(),
            names: Vec::new(),
            reports,
        };
        let follower = LogFollower::new(client, Log::Changes, Some(Cursor::START));
        let task = tasks.follow(follower);
        assert!(matches!(
            heard.recv().await,
            Some(TaskReport::Lost(UNREADABLE))
        ));
        drop(served.await.unwrap());
        task.abort();
    }
}
