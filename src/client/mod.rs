//! The API client: the service as another process sees it, over HTTP with an address and a token.
//!
//! In come a log and a cursor, or an owner and names. Out come the log's head, its events byte for byte, a
//! stream of them, and resolved values. Promise: no error holds a token, a value or any text of the
//! service's except an error's type; no redirect is followed, so the token goes nowhere else; every wait
//! ends. It does not decide what to try again, except in [`LogFollower`], which follows a log over any
//! number of connections.

mod answer;
mod credential;
mod document;
mod error;
mod follower;
mod sse;
mod stream;

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{
    Client, Identity, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
    redirect::Policy,
};
use secrecy::SecretString;
use tokio::time::timeout;
use zeroize::Zeroizing;

use credential::Credential;

use crate::domain::{Checkpoint, Cursor, Log, Owner, SecretName, is_loopback};

pub(crate) use answer::{EventPage, ResolvedValue, ResolvedValues};
pub(crate) use document::{DocumentError, fetch_document};
pub(crate) use error::ClientError;
pub(crate) use follower::{LONGEST_PAUSE, LogFollower};
pub(crate) use stream::{EventStream, StreamItem};

/// How long a connection may take to stand, and the body of an error to come.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the service may take to say whether it is ready.
const HEALTH: Duration = Duration::from_secs(5);
/// How long a whole answer may take: longer than the service waits for its database.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest body that is read: 100 values of 64 KiB, however they are escaped.
const BODY_BYTES: usize = 48 << 20;
/// The longest body of an error that is read.
const ERROR_BYTES: usize = 64 << 10;

/// Whether the token may cross a network in plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// It may not.
    Refused,
    /// It may: a private network or a tunnel protects it.
    Allowed,
}

/// One service and one token. A clone shares its connections.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    http: Client,
    credential: Arc<Credential>,
    base: String,
    origin: String,
}

impl ApiClient {
    /// Takes the service's address, with or without a path before `/api`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Address`] for anything but `http://` or `https://` with a host (also when it holds a
    /// password or a query), [`ClientError::Plaintext`] for `http://` to another machine unless that is
    /// allowed, [`ClientError::Token`] for a token that no header can hold, [`ClientError::Setup`].
    #[expect(clippy::needless_pass_by_value, reason = "the token is wiped here")]
    pub(crate) fn new(
        url: &str,
        token: SecretString,
        plaintext: Plaintext,
    ) -> Result<Self, ClientError> {
        Self::with(url, plaintext, || Credential::fixed(&token))
    }

    /// As [`ApiClient::new`], with the token that a file holds. The file is read again when it changes, and after
    /// the service has rejected the token.
    ///
    /// # Errors
    /// As [`ApiClient::new`], and [`ClientError::TokenFile`].
    pub(crate) fn with_token_file(
        url: &str,
        path: &Path,
        plaintext: Plaintext,
    ) -> Result<Self, ClientError> {
        Self::with(url, plaintext, || Credential::in_file(path))
    }

    fn with(
        url: &str,
        plaintext: Plaintext,
        credential: impl FnOnce() -> Result<Credential, ClientError>,
    ) -> Result<Self, ClientError> {
        let url = Url::parse(url).map_err(|_why| ClientError::Address)?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !(plain && url.has_host() && matches!(url.scheme(), "http" | "https")) {
            return Err(ClientError::Address);
        }
        let host = url.host_str().unwrap_or_default();
        let here = is_loopback(host.trim_matches(['[', ']']));
        if url.scheme() == "http" && !here && plaintext == Plaintext::Refused {
            return Err(ClientError::Plaintext);
        }
        let credential = credential()?;
        let http = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .tcp_keepalive(Duration::from_secs(15))
            .user_agent(concat!("rekey/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self {
            http,
            credential: Arc::new(credential),
            base: url.as_str().trim_end_matches('/').to_owned(),
            origin: origin(&url),
        })
    }

    /// Whether another token may come without a new client.
    #[must_use]
    pub(crate) fn token_may_change(&self) -> bool {
        self.credential.may_change()
    }

    /// The log's last event, as a signed checkpoint.
    ///
    /// # Errors
    /// [`ClientError`], as every call here.
    pub(crate) async fn head(&self, log: Log) -> Result<Checkpoint, ClientError> {
        let request = self.get("/api/v1/events/head", log);
        answer::checkpoint(&self.answered(request).await?, log)
    }

    /// One page of a log, after a cursor or from the first event that it holds.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the log does not hold the cursor, and the others.
    pub(crate) async fn events(
        &self,
        log: Log,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<EventPage, ClientError> {
        let mut request = self.get("/api/v1/events", log).query(&[("limit", limit)]);
        if let Some(after) = after {
            request = request.query(&[("after", after.to_string())]);
        }
        EventPage::read(&self.answered(request).await?)
    }

    /// One connection that streams a log, after a cursor or from the log's head.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the log does not hold the cursor, and the others.
    pub(crate) async fn stream(
        &self,
        log: Log,
        after: Option<Cursor>,
    ) -> Result<EventStream, ClientError> {
        let mut request = self.get("/api/v1/events", log);
        request = request.header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        let response = timeout(ANSWER, self.send(request))
            .await
            .map_err(|_elapsed| ClientError::Silent)??;
        EventStream::new(accepted(response).await?)
    }

    /// The values of an owner's secrets by their names, all or none, in the order asked, at least as new as
    /// `min_cursor`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with 404 when one of the names has no secret (or the token does not act for the
    /// owner), [`ClientError::Gone`] when the log does not hold `min_cursor`, and the others.
    pub(crate) async fn resolve(
        &self,
        owner: Option<&Owner>,
        names: &[SecretName],
        min_cursor: Option<Cursor>,
    ) -> Result<ResolvedValues, ClientError> {
        let request = self
            .http
            .post(format!("{}/api/v1/secrets/resolve", self.base))
            .header(CONTENT_TYPE, "application/json")
            .body(answer::resolve_request(owner, names, min_cursor));
        ResolvedValues::read(&self.answered(request).await?, names)
    }

    fn get(&self, path: &str, log: Log) -> RequestBuilder {
        let request = self.http.get(format!("{}{path}", self.base));
        request.query(&[("log", log.as_str())])
    }

    /// The body of a 200. It may hold values: it is wiped when dropped.
    async fn answered(&self, request: RequestBuilder) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let response = self.send(request.timeout(ANSWER)).await?;
        body(accepted(response).await?, BODY_BYTES).await
    }

    /// Sends a request with the token, once more if the service rejects it and there is another one by now.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let unreachable = |error| ClientError::unreachable(&self.origin, error);
        let again = request.try_clone();
        let token = self.credential.header();
        let request = request.header(AUTHORIZATION, token.clone());
        let response = request.send().await.map_err(unreachable)?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(other) = self.credential.instead_of(&token)
            && let Some(again) = again
        {
            let again = again.header(AUTHORIZATION, other);
            return again.send().await.map_err(unreachable);
        }
        Ok(response)
    }
}

/// What the service says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthReport {
    /// Whether it is ready.
    pub ready: bool,
    /// The body of its answer.
    pub body: String,
}

/// Certificate and private key of the service itself, in PEM.
#[derive(Clone, Copy)]
pub(crate) struct OwnIdentity<'a>(pub &'a [u8]);

/// Asks the service at this address whether it is ready; no token is needed.
///
/// With `own` it is the service that runs on this machine with that certificate, which hardly names this address: so it is
/// not checked. Nothing secret is sent.
///
/// # Errors
/// [`ClientError::Address`], [`ClientError::Unreachable`], [`ClientError::Setup`], or [`ClientError::Silent`] when the
/// answer takes longer than 5 s.
pub(crate) async fn check_health(
    address: &str,
    own: Option<OwnIdentity<'_>>,
) -> Result<HealthReport, ClientError> {
    let url = format!("{}/ready", address.trim_end_matches('/'));
    let url = Url::parse(&url).map_err(|_why| ClientError::Address)?;
    let origin = origin(&url);
    let mut http = Client::builder().no_proxy().timeout(HEALTH);
    if let Some(OwnIdentity(pem)) = own {
        let identity = Identity::from_pem(pem).map_err(ClientError::Setup)?;
        http = http.identity(identity).danger_accept_invalid_certs(true);
    }
    let http = http.build().map_err(ClientError::Setup)?;
    let unreachable = |error| ClientError::unreachable(&origin, error);
    let answer = http.get(url).send().await.map_err(unreachable)?;
    Ok(HealthReport {
        ready: answer.status() == StatusCode::OK,
        body: answer.text().await.map_err(unreachable)?,
    })
}

/// An address without its path: `http://host:port`.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Lets a 200 through; anything else is an error.
async fn accepted(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    match status {
        StatusCode::OK => Ok(response),
        StatusCode::UNAUTHORIZED => Err(ClientError::Unauthorised),
        StatusCode::GONE => {
            // The service names both; a 410 from something in front of it may name neither.
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
            // The status says enough when the body does not come or is no envelope.
            let kind = async { answer::error_type(&body(response, ERROR_BYTES).await.ok()?) };
            Err(ClientError::Refused {
                status: status.as_u16(),
                kind: timeout(CONNECT, kind).await.ok().flatten(),
            })
        }
    }
}

async fn body(mut response: Response, most: usize) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    let origin = origin(response.url());
    let unreachable = |error| ClientError::unreachable(&origin, error);
    let mut body = Zeroizing::new(Vec::new());
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        if body.len() + piece.len() > most {
            return Err(ClientError::NotUnderstood("it is too long"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorChain;

    fn client(url: &str, token: &str) -> Result<ApiClient, ClientError> {
        let token = SecretString::from(token.to_owned());
        ApiClient::new(url, token, Plaintext::Refused)
    }

    #[test]
    fn a_token_crosses_a_network_in_plain_text_only_where_that_is_allowed() {
        for here in [
            "http://127.0.0.1",
            "http://[::1]:8080",
            "http://localhost:1",
        ] {
            client(here, "rekey_token").unwrap();
        }
        for elsewhere in [
            "http://keys.example.org",
            "http://10.0.0.1:8080",
            "http://0.0.0.0",
            "http://[2001:db8::5]",
        ] {
            let refused = client(elsewhere, "rekey_token");
            assert!(
                matches!(refused, Err(ClientError::Plaintext)),
                "{elsewhere}"
            );
            let token = SecretString::from("rekey_token");
            ApiClient::new(elsewhere, token, Plaintext::Allowed).unwrap();
        }
    }

    #[test]
    fn an_address_is_http_with_a_host_and_nothing_that_a_message_must_not_show() {
        for good in ["http://127.0.0.1:8080", "https://keys.example.org/below/"] {
            let client = client(good, "rekey_token").unwrap();
            assert!(!client.base.ends_with('/'), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "ftp://a",
            "http://me:pw@a",
            "http://a/?b=c",
            "http://",
        ] {
            let refused = client(bad, "rekey_token");
            assert!(matches!(refused, Err(ClientError::Address)), "{bad}");
        }
    }

    #[test]
    fn a_token_is_in_no_debug_text() {
        let good = client("https://a", "canary").unwrap();
        assert!(!format!("{good:?}").contains("canary"));
        let error = client("https://a", "canary\n").unwrap_err();
        assert!(!format!("{error:?} {error}").contains("canary"));
    }

    #[tokio::test]
    async fn an_unreachable_service_is_named_only_by_its_origin() {
        // Taken and given back: nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = client(&format!("http://{address}/canary"), "rekey_token").unwrap();
        let error = client.head(Log::Changes).await.unwrap_err();
        assert!(error.may_pass());
        let text = ErrorChain(&error).to_string();
        let start = format!("cannot reach the service at http://{address}: ");
        assert!(text.starts_with(&start), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}
