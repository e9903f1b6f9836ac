//! A log followed over any number of connections.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use super::{ApiClient, ClientError, EventStream, StreamItem};
use crate::domain::{Cursor, Log};

/// Grows with each failure and begins anew after a success.
#[derive(Debug)]
pub struct Pause {
    next: Duration,
}

impl Pause {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    /// Begins with the shortest.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: Self::SHORTEST,
        }
    }

    /// Waits. Jittered, so that the clients of a service that comes back do not come all at once.
    pub async fn wait(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).min(Self::LONGEST);
        let share = u32::try_from(RandomState::new().hash_one(0) % 512).unwrap_or(0);
        tokio::time::sleep(pause * (512 + share) / 1024).await;
    }

    /// Something went well.
    pub const fn reset(&mut self) {
        self.next = Self::SHORTEST;
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self::new()
    }
}

/// Follows a log and resumes from its last cursor after any break: each event comes once.
#[derive(Debug)]
pub struct LogFollower {
    client: ApiClient,
    log: Log,
    cursor: Option<Cursor>,
    follow: Option<EventStream>,
    pause: Pause,
    away: bool,
}

impl LogFollower {
    /// Begins after a cursor, or at the log's head as the first connection finds it.
    #[must_use]
    pub const fn new(client: ApiClient, log: Log, after: Option<Cursor>) -> Self {
        Self {
            client,
            log,
            cursor: after,
            follow: None,
            pause: Pause::new(),
            away: false,
        }
    }

    /// Makes the first connection, so that a token that may not follow is found out.
    ///
    /// # Errors
    /// Those that [`ClientError::may_pass`] says do not.
    pub async fn begin(&mut self) -> Result<(), ClientError> {
        match self.client.follow(self.log, self.cursor).await {
            Ok(follow) => self.follow = Some(follow),
            Err(error) if error.may_pass() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The next that has passed.
    ///
    /// # Errors
    /// Those that [`ClientError::may_pass`] says do not; the others are waited out.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped; a connection being made is begun anew.
    pub async fn next(&mut self) -> Result<StreamItem, ClientError> {
        loop {
            match self.step().await {
                Ok(Some(passed)) => return Ok(passed),
                Ok(None) => tracing::debug!("the stream has ended"),
                Err(error) if error.may_pass() => self.gone(&error),
                Err(error) => return Err(error),
            }
            self.follow = None;
            self.pause.wait().await;
        }
    }

    async fn step(&mut self) -> Result<Option<StreamItem>, ClientError> {
        let fresh = self.follow.is_none();
        let follow = if let Some(follow) = &mut self.follow {
            follow
        } else {
            let follow = self.client.follow(self.log, self.cursor).await?;
            self.follow.insert(follow)
        };
        let passed = follow.next().await?;
        if let Some(passed) = &passed {
            self.cursor = Some(passed.cursor);
            // Not for the block that every connection begins with: a service that takes connections and
            // drops them is not to be hurried.
            if !fresh {
                self.pause.reset();
            }
            if std::mem::take(&mut self.away) {
                tracing::info!(event.cursor = %passed.cursor, "the stream is there again");
            }
        }
        Ok(passed)
    }

    /// Says so once, however often it is tried.
    fn gone(&mut self, error: &ClientError) {
        if !std::mem::replace(&mut self.away, true) {
            let error: &dyn std::error::Error = error;
            tracing::warn!(error, "the stream broke; it is resumed");
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

    use super::*;

    const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

    /// Gives one answer a connection, and what each asked.
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
        (ApiClient::new(&url, token).unwrap(), asked)
    }

    #[tokio::test]
    async fn a_break_is_resumed_after_the_last_cursor_and_nothing_comes_twice() {
        let (client, asked) = served(vec![
            format!("{STREAM}id: 1-4\n\nid: 1-5\nevent: secret.updated\ndata: {{}}\n\nid: 1-6\nev"),
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".to_owned(),
            format!("{STREAM}id: 1-5\n\nid: 1-6\nevent: secret.deleted\ndata: {{}}\n\n"),
        ])
        .await;
        let mut trail = LogFollower::new(client, Log::Changes, Cursor::parse("1-4").ok());
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let passed = trail.next().await.unwrap();
            if let Some(event) = passed.event {
                seen.push((passed.cursor.to_string(), event.kind));
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
    async fn a_cursor_that_is_gone_is_told_with_where_the_log_begins() {
        let head = "HTTP/1.1 410 Gone\r\nrekey-log-first: 1-3\r\nrekey-log-head: 2-9\r\n";
        let (client, _asked) = served(vec![format!("{head}content-length: 0\r\n\r\n")]).await;
        let mut trail = LogFollower::new(client, Log::Changes, Some(Cursor::START));
        let error = trail.next().await.unwrap_err();
        let ClientError::Gone { first, head } = error else {
            panic!("{error}");
        };
        assert_eq!(
            (first, head),
            (Cursor::parse("1-3").ok(), Cursor::parse("2-9").ok())
        );
    }
}
