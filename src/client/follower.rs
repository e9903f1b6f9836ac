//! A log followed over any number of connections.

use std::time::Duration;

use super::{ApiClient, ClientError, EventStream, StreamItem};
use crate::backoff::Backoff;
use crate::domain::{Cursor, ErrorChain, Log};

/// The longest pause between two attempts to reach the service.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Follows a log over any number of connections. After a break it resumes from its last cursor, so each event
/// comes once.
#[derive(Debug)]
pub(crate) struct LogFollower {
    client: ApiClient,
    log: Log,
    cursor: Option<Cursor>,
    stream: Option<EventStream>,
    backoff: Backoff,
    broken: bool,
}

impl LogFollower {
    /// Begins after a cursor, or at the log's head as the first connection finds it.
    #[must_use]
    pub(crate) fn new(client: ApiClient, log: Log, after: Option<Cursor>) -> Self {
        Self {
            client,
            log,
            cursor: after,
            stream: None,
            backoff: Backoff::new(LONGEST_PAUSE),
            broken: false,
        }
    }

    /// Makes the first connection, so that a token that may not follow the log fails here.
    ///
    /// # Errors
    /// Those that [`ClientError::may_pass`] says do not pass.
    pub(crate) async fn connect(&mut self) -> Result<(), ClientError> {
        match self.client.stream(self.log, self.cursor).await {
            Ok(stream) => self.stream = Some(stream),
            // `next` tries again.
            Err(error) if error.may_pass() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The next item. Errors that may pass are waited out.
    ///
    /// # Errors
    /// Those that [`ClientError::may_pass`] says do not pass.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped; a connection that was being made is made anew.
    pub(crate) async fn next(&mut self) -> Result<StreamItem, ClientError> {
        loop {
            match self.step().await {
                Ok(Some(item)) => return Ok(item),
                Ok(None) => tracing::debug!("the service ended the stream"),
                Err(error) if error.may_pass() => self.warn_once(&error),
                Err(error) => return Err(error),
            }
            self.stream = None;
            self.backoff.wait().await;
        }
    }

    async fn step(&mut self) -> Result<Option<StreamItem>, ClientError> {
        let first = self.stream.is_none();
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(self.client.stream(self.log, self.cursor).await?),
        };
        let item = stream.next().await?;
        if let Some(item) = &item {
            self.cursor = Some(item.cursor);
            // Every connection begins with an item. It does not count: a service that accepts connections
            // and drops them must not be hurried.
            if !first {
                self.backoff.reset();
            }
            if std::mem::take(&mut self.broken) {
                tracing::info!(event.cursor = %item.cursor, "resumed the stream");
            }
        }
        Ok(item)
    }

    /// Logs the first error of a break, however many follow.
    fn warn_once(&mut self, error: &ClientError) {
        if !std::mem::replace(&mut self.broken, true) {
            tracing::warn!(error = %ErrorChain(error), "the stream broke; resuming it");
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::{super::Plaintext, *};

    const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

    /// Gives one answer to each connection; the task returns what each asked.
    async fn served(answers: Vec<String>) -> (ApiClient, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut link, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = link.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
                link.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let token = SecretString::from("rekey_token".to_owned());
        (
            ApiClient::new(&url, token, Plaintext::Refused).unwrap(),
            asked,
        )
    }

    #[tokio::test]
    async fn a_break_is_resumed_after_the_last_cursor_and_nothing_comes_twice() {
        let (client, asked) = served(vec![
            format!("{STREAM}id: 1-4\n\nid: 1-5\nevent: secret.updated\ndata: {{}}\n\nid: 1-6\nev"),
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".to_owned(),
            format!("{STREAM}id: 1-5\n\nid: 1-6\nevent: secret.deleted\ndata: {{}}\n\n"),
        ])
        .await;
        let mut follower = LogFollower::new(client, Log::Changes, Cursor::parse("1-4").ok());
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let item = follower.next().await.unwrap();
            if let Some(event) = item.event {
                seen.push((item.cursor.to_string(), event.kind));
            }
        }
        let event = |cursor: &str, kind: &str| (cursor.to_owned(), kind.to_owned());
        assert_eq!(
            seen,
            [
                event("1-5", "secret.updated"),
                event("1-6", "secret.deleted")
            ]
        );
        let asked = asked.await.unwrap();
        for (request, cursor) in asked.iter().zip(["1-4", "1-5", "1-5"]) {
            assert!(
                request.contains(&format!("last-event-id: {cursor}\r\n")),
                "{request}"
            );
            assert!(
                request.contains("accept: text/event-stream\r\n"),
                "{request}"
            );
            assert!(
                request.contains("authorization: Bearer rekey_token\r\n"),
                "{request}"
            );
        }
    }

    #[tokio::test]
    async fn a_cursor_that_is_gone_comes_with_where_the_log_begins() {
        let head = "HTTP/1.1 410 Gone\r\nrekey-log-first: 1-3\r\nrekey-log-head: 2-9\r\n";
        let (client, _asked) = served(vec![format!("{head}content-length: 0\r\n\r\n")]).await;
        let mut follower = LogFollower::new(client, Log::Changes, Some(Cursor::START));
        let error = follower.next().await.unwrap_err();
        let ClientError::Gone { first, head } = error else {
            panic!("{error}");
        };
        assert_eq!(
            (first, head),
            (Cursor::parse("1-3").ok(), Cursor::parse("2-9").ok())
        );
    }
}
