//! Certificates for tests, made when they are needed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// An authority that nobody else knows.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Makes connections to whoever shows a certificate of this authority.
    pub(crate) fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// A certificate for loopback and its key, as files in `folder` whose names begin with `name`.
    pub(crate) fn issue(&self, folder: &Path, name: &str) -> [PathBuf; 2] {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        [
            write(folder, &format!("{name}-cert.pem"), "CERTIFICATE", cert.der()),
            write(folder, &format!("{name}-key.pem"), "PRIVATE KEY", &key.serialize_der()),
        ]
    }
}

fn write(folder: &Path, name: &str, kind: &str, der: &[u8]) -> PathBuf {
    let path = folder.join(name);
    let text = BASE64_STANDARD.encode(der);
    fs::write(&path, format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")).unwrap();
    path
}
