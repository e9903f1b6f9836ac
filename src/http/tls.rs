//! TLS of our own: certificate, key and the authorities of clients, from files that are read again when they change.
//!
//! In: paths. Out: a configuration whose every handshake uses what was read last. Promise: files that can't be used, or
//! don't go together, change nothing: the ones before stay. No error quotes a file: one of them is a private key.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{self, CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::domain::ErrorChain;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where the certificates and the key are, each in PEM.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that a client's certificate must come from; none: clients need no certificate.
    pub client_authorities: Option<PathBuf>,
}

/// Why the files can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file can't be read.
    #[error("can't read {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// A file holds something else.
    #[error("{} does not hold {} in PEM", .0.display(), .1)]
    Form(PathBuf, &'static str),
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("{} and {} can't be used together", .0.display(), .1.display())]
    Pair(PathBuf, PathBuf, #[source] Error),
    /// rustls refuses the rest.
    #[error("TLS can't be set up")]
    Setup(#[from] Error),
}

/// What handshakes work with.
struct Current {
    certified: Arc<CertifiedKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// Of each file what changes when it is written or replaced.
type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

/// The server's side of TLS.
pub(crate) struct ServerTls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Current>,
    seen: Mutex<Stamp>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub(crate) fn read(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        // Before they are read, so that no change is missed.
        let seen = Mutex::new(files.stamp());
        let current = RwLock::new(files.read(&provider)?);
        Ok(Arc::new(Self {
            files,
            provider,
            current,
            seen,
        }))
    }

    /// The configuration of a listener.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub(super) fn config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?;
        if self.files.client_authorities.is_none() {
            let config = config.with_no_client_auth();
            return Ok(config.with_cert_resolver(self.clone()));
        }
        let config = config.with_client_cert_verifier(self.clone());
        let mut config = config.with_cert_resolver(self.clone());
        // A resumed session would be good for longer than its client's authority is.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Reads the files again whenever they change, for as long as the process runs.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            sleep(LOOK).await;
            let this = self.clone();
            if spawn_blocking(move || this.look()).await.is_err() {
                tracing::error!("the TLS files are no longer watched");
                return;
            }
        }
    }

    fn look(&self) {
        let stamp = self.files.stamp();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp {
            return;
        }
        *seen = stamp;
        match self.files.read(&self.provider) {
            Ok(fresh) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                tracing::info!("the TLS files have changed, and are in use");
            }
            Err(error) => tracing::error!(
                error = %ErrorChain(&error),
                "the TLS files have changed and can't be used; what was read before stays in use"
            ),
        }
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.certified.clone()
    }
}

/// What makes TLS of a listener's connections; nothing where there is no TLS.
///
/// # Errors
/// [`TlsError::Setup`].
pub(super) fn acceptor(tls: Option<&Arc<ServerTls>>) -> Result<Option<TlsAcceptor>, TlsError> {
    tls.map(|tls| Ok(TlsAcceptor::from(Arc::new(tls.config()?))))
        .transpose()
}

impl TlsFiles {
    fn stamp(&self) -> Stamp {
        let files = [
            Some(&self.certificate),
            Some(&self.key),
            self.client_authorities.as_ref(),
        ];
        let stamp = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
        };
        files.into_iter().flatten().map(stamp).collect()
    }

    fn read(&self, provider: &Arc<CryptoProvider>) -> Result<Current, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = bytes(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_may_quote_the_key| TlsError::Form(self.key.clone(), "a private key"))?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| TlsError::Pair(self.certificate.clone(), self.key.clone(), error))?;
        let clients = self.client_authorities.as_ref();
        let clients = clients.map(|path| client_verifier(path, provider));
        Ok(Current {
            certified: Arc::new(certified),
            clients: clients.transpose()?,
        })
    }
}

fn bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = fs::read(path).map(Zeroizing::new);
    read.map_err(|error| TlsError::File(path.to_owned(), error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = bytes(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = read.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::Form(path.to_owned(), "certificates"))
}

fn client_verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    verifier.map_err(|_no_root| TlsError::Form(path.to_owned(), "certificates"))
}

impl ResolvesServerCert for ServerTls {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

impl ClientCertVerifier for ServerTls {
    /// None: they may change while this is borrowed. Clients then choose for themselves.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Besides what the authorities have issued, the server's own certificate is good: whoever has its key is the
    /// server, and `rekey healthcheck` has no other.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.certified().cert.first() == Some(end_entity) {
            return Ok(ClientCertVerified::assertion());
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let clients = current.clients.clone();
        drop(current);
        let clients = clients.ok_or_else(|| Error::General("no authority of clients".into()))?;
        clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}
