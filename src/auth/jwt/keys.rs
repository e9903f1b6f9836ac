//! The issuer's keys, as a JWK Set (RFC 7517): from a file, which is read again when it changes, or from an address
//! of the settings, which is asked again from time to time and for a key that is not known, at most once a minute.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use tokio::{sync::Mutex, task::spawn_blocking, time::sleep};

use crate::{
    client::{DocumentError, fetch_document},
    crypto::JwsKey,
    domain::ErrorChain,
};

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often an address is asked.
const RENEW: Duration = Duration::from_mins(5);
/// An address is not asked more often than that for a key that is not known.
const AGAIN: Duration = Duration::from_mins(1);
/// The most bytes of a key set.
const BYTES: usize = 256 << 10;

/// Where the keys are.
#[derive(Debug, Clone)]
pub(crate) enum JwksSource {
    /// A file.
    File(PathBuf),
    /// An address.
    Address(String),
}

/// Why the keys can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwksError {
    /// The file can't be read.
    #[error("cannot read the key set {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// The file is too long.
    #[error("the key set {0} is longer than 256 KiB")]
    TooLong(PathBuf),
    /// The address does not answer as it must.
    #[error("cannot get the key set from auth.jwks_url")]
    Address(#[source] DocumentError),
    /// It is no JWK Set.
    #[error("it is no JWK Set (RFC 7517)")]
    Form,
    /// Two keys have the same ID.
    #[error("two keys of the key set have the same ID")]
    RepeatedId,
    /// It holds no key that can be used.
    #[error("the key set has no key for RS256, ES256 or EdDSA with a `kid`")]
    Empty,
}

type Keys = HashMap<String, Arc<JwsKey>>;

/// The keys, kept up with their source.
#[derive(Debug)]
pub(super) struct KeySet {
    source: JwksSource,
    keys: RwLock<Keys>,
    /// When the address was asked last. Held while it is asked.
    asked: Mutex<Option<Instant>>,
}

impl KeySet {
    pub(super) async fn open(source: JwksSource) -> Result<Self, JwksError> {
        let set = Self {
            source,
            keys: RwLock::default(),
            asked: Mutex::new(None),
        };
        match &set.source {
            JwksSource::File(path) => set.replace(read_file(path)?),
            JwksSource::Address(_) => set.ask(AGAIN).await,
        }
        Ok(set)
    }

    /// The key of an ID.
    pub(super) async fn find(&self, id: &str) -> Option<Arc<JwsKey>> {
        let found = self.known(id);
        if found.is_none() && matches!(self.source, JwksSource::Address(_)) {
            self.ask(AGAIN).await;
            return self.known(id);
        }
        found
    }

    pub(super) async fn follow(&self) {
        match &self.source {
            JwksSource::File(path) => self.watch(path.clone()).await,
            JwksSource::Address(_) => loop {
                sleep(RENEW).await;
                self.ask(AGAIN).await;
            },
        }
    }

    fn known(&self, id: &str) -> Option<Arc<JwsKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(id).cloned()
    }

    fn replace(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    async fn watch(&self, path: PathBuf) {
        // Nothing yet: a file that changed since the start is read once more.
        let mut seen = None;
        loop {
            sleep(LOOK).await;
            let stamp = stamp(&path);
            if seen == Some(stamp) {
                continue;
            }
            seen = Some(stamp);
            let path = path.clone();
            match spawn_blocking(move || read_file(&path)).await {
                Ok(Ok(keys)) => self.replace(keys),
                Ok(Err(error)) => complain(&error),
                Err(_panicked) => {
                    tracing::error!("the key set of auth.jwks_path is no longer watched");
                    return;
                }
            }
        }
    }

    /// Asks the address, unless it was asked a moment ago. What it answered before stays good until it answers well.
    async fn ask(&self, pause: Duration) {
        let JwksSource::Address(url) = &self.source else {
            return;
        };
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < pause) {
            return;
        }
        *asked = Some(Instant::now());
        let document = fetch_document(url, BYTES).await.map_err(JwksError::Address);
        match document.and_then(|document| parse(&document)) {
            Ok(keys) => self.replace(keys),
            Err(error) => complain(&error),
        }
    }
}

fn complain(error: &JwksError) {
    tracing::error!(
        error = %ErrorChain(error),
        "the keys of JSON Web Tokens can't be renewed; those that were read before stay in use"
    );
}

/// What changes when a file is written or replaced.
fn stamp(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

fn read_file(path: &Path) -> Result<Keys, JwksError> {
    let bytes = fs::read(path).map_err(|error| JwksError::File(path.to_owned(), error))?;
    if bytes.len() > BYTES {
        return Err(JwksError::TooLong(path.to_owned()));
    }
    parse(&bytes)
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

/// A key, as far as it is a key of ours.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key, if it is one for signatures of an algorithm of ours. Symmetric keys never are.
    fn key(&self) -> Option<JwsKey> {
        let bytes = |member: &Option<String>| {
            let text = member.as_deref()?;
            URL_SAFE_NO_PAD.decode(text).ok()
        };
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => JwsKey::rsa(&bytes(&self.n)?, &bytes(&self.e)?)?,
            ("EC", Some("P-256")) => JwsKey::p256(&bytes(&self.x)?, &bytes(&self.y)?)?,
            ("OKP", Some("Ed25519")) => JwsKey::ed25519(&bytes(&self.x)?)?,
            _ => return None,
        };
        let signs = self.r#use.as_deref().is_none_or(|usage| usage == "sig");
        let ours = self.alg.as_deref().is_none_or(|alg| alg == key.algorithm());
        (signs && ours).then_some(key)
    }
}

/// Reads a key set. Keys of other kinds are passed over, as RFC 7517 section 5 says.
fn parse(bytes: &[u8]) -> Result<Keys, JwksError> {
    // The parser's error may quote the document.
    let set: JwkSet = serde_json::from_slice(bytes).or(Err(JwksError::Form))?;
    let mut keys = Keys::new();
    for entry in set.keys {
        let Ok(jwk) = serde_json::from_value::<Jwk>(entry) else {
            continue;
        };
        if let Some(key) = jwk.key()
            && keys.insert(jwk.kid, Arc::new(key)).is_some()
        {
            return Err(JwksError::RepeatedId);
        }
    }
    if keys.is_empty() {
        return Err(JwksError::Empty);
    }
    Ok(keys)
}
