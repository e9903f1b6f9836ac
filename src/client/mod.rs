//! The service as another process sees it: over HTTP, with an address and a token.
//!
//! In come a log and a cursor, or an owner and names; out go the log's head, its events byte for
//! byte, a stream of them, and resolved values. Promise: no error holds a token, a value or any text of
//! the service's but an error's type; no redirect is followed, so that the token goes nowhere else; every
//! wait ends. What it does not do: decide what is worth another try, but for [`LogFollower`], which follows a
//! log over any number of connections.

mod answer;
mod error;
mod follower;
mod sse;
mod stream;

use std::time::Duration;

use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::domain::{Checkpoint, Cursor, Log, Owner, SecretName};

pub use answer::{EventPage, ResolvedValue, ResolvedValues};
pub use error::ClientError;
pub use follower::{LogFollower, Pause};
pub use stream::{EventStream, StreamItem, StreamedEvent};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a whole answer may take: longer than the service waits for its database.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest body that is read: 100 values of 64 KiB, however they are escaped.
const BODY_BYTES: usize = 48 << 20;

/// One service, one token. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct ApiClient {
    http: Client,
    base: String,
}

impl ApiClient {
    /// Takes the service's address, with or without a path before `/api`; nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Address`] for anything but `http://` or `https://` with a host (a password or a
    /// query in it included), [`ClientError::Token`] for a token that no header can hold.
    #[expect(clippy::needless_pass_by_value, reason = "the token is wiped here")]
    pub fn new(url: &str, token: SecretString) -> Result<Self, ClientError> {
        let url = Url::parse(url).or(Err(ClientError::Address))?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !(plain && url.has_host() && matches!(url.scheme(), "http" | "https")) {
            return Err(ClientError::Address);
        }
        let credential = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
        let mut credential = HeaderValue::from_str(&credential).or(Err(ClientError::Token))?;
        credential.set_sensitive(true);
        let http = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .tcp_keepalive(Duration::from_secs(15))
            .user_agent(concat!("rekey/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, credential)]))
            .build()
            .map_err(ClientError::unreachable)?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base })
    }

    /// The log's last event, as a signed checkpoint.
    ///
    /// # Errors
    /// [`ClientError`], as every call here.
    pub async fn head(&self, log: Log) -> Result<Checkpoint, ClientError> {
        let query = [("log", log.as_str())];
        let request = self.get("/api/v1/events/head").query(&query);
        let body = self.answered(request).await?;
        answer::checkpoint(&body, log).ok_or(ClientError::NotUnderstood)
    }

    /// One page of a log, after a cursor or from the first event kept.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the cursor is not good, and the others.
    pub async fn events(
        &self,
        log: Log,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<EventPage, ClientError> {
        let mut request = self.get("/api/v1/events").query(&[("log", log.as_str())]);
        request = request.query(&[("limit", limit)]);
        if let Some(after) = after {
            request = request.query(&[("after", after.to_string())]);
        }
        let body = self.answered(request).await?;
        EventPage::read(&body).ok_or(ClientError::NotUnderstood)
    }

    /// One connection that streams a log, after a cursor or from its head on.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the cursor is not good, and the others.
    pub async fn follow(
        &self,
        log: Log,
        after: Option<Cursor>,
    ) -> Result<EventStream, ClientError> {
        let mut request = self
            .get("/api/v1/events")
            .query(&[("log", log.as_str())])
            .header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        let sent = tokio::time::timeout(ANSWER, request.send()).await;
        let response = sent
            .or(Err(ClientError::Silent))?
            .map_err(ClientError::unreachable)?;
        EventStream::new(accepted(response).await?)
    }

    /// The values of these names of an owner's, all or none, in the order asked; at least as new as
    /// `min_cursor`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with 404 when a name is not there (or the owner is not granted),
    /// [`ClientError::Gone`] when `min_cursor` is not good, and the others.
    pub async fn resolve(
        &self,
        owner: Option<&Owner>,
        names: &[SecretName],
        min_cursor: Option<Cursor>,
    ) -> Result<ResolvedValues, ClientError> {
        let question = answer::question(owner, names, min_cursor);
        let request = self
            .http
            .post(format!("{}/api/v1/secrets/resolve", self.base))
            .header("content-type", "application/json")
            .body(question);
        let body = self.answered(request).await?;
        ResolvedValues::read(&body, names).ok_or(ClientError::NotUnderstood)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    /// The body of a good answer. It may hold values: it is wiped.
    async fn answered(&self, request: RequestBuilder) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let response = request.timeout(ANSWER).send().await;
        let response = accepted(response.map_err(ClientError::unreachable)?).await?;
        body(response, BODY_BYTES).await
    }
}

/// Passes a 200 on; anything else is an error.
async fn accepted(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    match status {
        StatusCode::OK => Ok(response),
        StatusCode::UNAUTHORIZED => Err(ClientError::Unauthorised),
        StatusCode::GONE => {
            let cursor = |name| {
                let text = response.headers().get(name)?.to_str().ok()?;
                Cursor::parse(text).ok()
            };
            Err(ClientError::Gone {
                first: cursor("rekey-log-first"),
                head: cursor("rekey-log-head"),
            })
        }
        _ => {
            let whole = tokio::time::timeout(CONNECT, body(response, 64 << 10)).await;
            let kind = match whole {
                Ok(Ok(body)) => answer::error_type(&body),
                Ok(Err(_)) | Err(_) => None,
            };
            Err(ClientError::Refused {
                status: status.as_u16(),
                kind,
            })
        }
    }
}

async fn body(mut response: Response, most: usize) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(piece) = response.chunk().await.map_err(ClientError::unreachable)? {
        if body.len() + piece.len() > most {
            return Err(ClientError::NotUnderstood);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_with_a_host_and_nothing_that_a_message_must_not_show() {
        let client = |url: &str| ApiClient::new(url, SecretString::from("rekey_token".to_owned()));
        for good in ["http://127.0.0.1:8080", "https://keys.example.org/below/"] {
            assert!(!client(good).unwrap().base.ends_with('/'), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "ftp://a",
            "http://me:pw@a",
            "http://a/?b=c",
            "http://",
        ] {
            assert!(matches!(client(bad), Err(ClientError::Address)), "{bad}");
        }
    }

    #[test]
    fn a_token_is_in_no_debug_text() {
        let client = ApiClient::new("http://a", SecretString::from("canary".to_owned())).unwrap();
        assert!(!format!("{client:?}").contains("canary"));
        let bad = ApiClient::new("http://a", SecretString::from("canary\n".to_owned()));
        let error = bad.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("canary"));
    }
}
