//! Whether a service is ready.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url};

use super::{ClientError, origin};

/// How long the service may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the service says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthReport {
    /// Whether it is ready.
    pub ready: bool,
    /// The body of its answer.
    pub body: String,
}

/// Asks the service at this address whether it is ready; no token is needed.
///
/// # Errors
/// [`ClientError::Address`], [`ClientError::Unreachable`], or [`ClientError::Silent`] when the answer takes
/// longer than 5 s.
pub(crate) async fn check_health(address: &str) -> Result<HealthReport, ClientError> {
    let url = format!("{}/ready", address.trim_end_matches('/'));
    let url = Url::parse(&url).map_err(|_why| ClientError::Address)?;
    let origin = origin(&url);
    let http = Client::builder().no_proxy().timeout(DEADLINE).build();
    let http = http.map_err(ClientError::Setup)?;
    let unreachable = |error| ClientError::unreachable(&origin, error);
    let answer = http.get(url).send().await.map_err(unreachable)?;
    Ok(HealthReport {
        ready: answer.status() == StatusCode::OK,
        body: answer.text().await.map_err(unreachable)?,
    })
}
