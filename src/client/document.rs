//! Gets a small public document over HTTP, such as a key set.

use std::time::Duration;

use reqwest::{Client, redirect::Policy};

/// How long it may take in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The address can't be reached, or breaks off.
    #[error("it cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// It answers something else. A redirect is not followed.
    #[error("it answers with status {0}")]
    Status(u16),
    /// The document is longer than it may be.
    #[error("its answer is too long")]
    TooLong,
}

/// Gets a document of at most so many bytes. No redirect is followed, and no credential is sent.
///
/// # Errors
/// [`DocumentError`].
pub(crate) async fn fetch_document(url: &str, most: usize) -> Result<Vec<u8>, DocumentError> {
    let client = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .timeout(PATIENCE)
        .user_agent(concat!("rekey/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(DocumentError::Unreachable)?;
    let answer = client.get(url).send().await;
    let mut answer = answer.map_err(|error| DocumentError::Unreachable(error.without_url()))?;
    if answer.status().as_u16() != 200 {
        return Err(DocumentError::Status(answer.status().as_u16()));
    }
    let mut document = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(DocumentError::Unreachable)? {
        if document.len() + piece.len() > most {
            return Err(DocumentError::TooLong);
        }
        document.extend_from_slice(&piece);
    }
    Ok(document)
}
