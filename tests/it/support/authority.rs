//! A private certificate authority, as a company has one, and what it issues to the servers and clients of a test.

use super::{folder::Folder, postgres};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(crate) struct Authority {
    folder: Folder,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its private key, in two PEM files.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = Folder::new("ca");
        postgres::own(folder.path());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own, so that no authority is taken for another.
        let name = uuid::Uuid::new_v4().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let this = Self { folder, issuer };
        write(&this.certificate(), &this.issuer.pem());
        this
    }

    /// The certificate that whoever trusts this authority needs.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate for these hosts, in files that begin with `name` and replace earlier ones.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str]) -> Identity {
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).expect("hosts");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity = Identity {
            certificate: self.folder.join(&format!("{name}.pem")),
            key: self.folder.join(&format!("{name}.key")),
        };
        write(&identity.key, &key.serialize_pem());
        write(&identity.certificate, &certificate.pem());
        identity
    }
}

/// The server of PostgreSQL takes no key that others may read, or that belongs to somebody else.
fn write(path: &Path, text: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .expect("a file");
    file.write_all(text.as_bytes()).expect("a file");
    postgres::own(Path::new(&aside));
    std::fs::rename(&aside, path).expect("a file in its place");
}
