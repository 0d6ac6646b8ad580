//! TLS: certificates and keys out of files, for whoever comes in and for where calls go.
//!
//! The cryptography is ring's everywhere; TLS 1.2 and 1.3 are spoken.

mod client;
mod server;
#[cfg(test)]
pub(crate) mod testing;

use std::{fs, path::Path, sync::Arc};

use rustls::{
    InconsistentKeys, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};

pub(crate) use self::{
    client::ClientFiles,
    server::{Acceptor, ServerFiles},
};

/// A file of a `tls` table that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    /// The key in the table that names the file.
    pub key: &'static str,
    /// The file, and what is wrong with it.
    pub message: String,
}

impl TlsError {
    fn file(key: &'static str, path: &Path, reason: impl std::fmt::Display) -> Self {
        Self { key, message: format!("{}: {reason}", path.display()) }
    }
}

/// What is in the file.
pub(crate) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::file(key, path, format_args!("cannot be read: {error}"));
    fs::read(path).map_err(unreadable)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(key, path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|e| TlsError::file(key, path, format_args!("is no PEM: {e}")))?;
    if certificates.is_empty() {
        return Err(TlsError::file(key, path, "holds no certificate in PEM"));
    }
    Ok(certificates)
}

/// The authorities that this file names, and no others.
fn roots(key: &'static str, path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        let unusable = |error| TlsError::file(key, path, format_args!("cannot be used: {error}"));
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(Arc::new(roots))
}

/// A certificate with those that lead to its root, and its key.
fn identity(cert: &Path, key: &Path) -> Result<Arc<SingleCertAndKey>, TlsError> {
    let chain = certificates("cert", cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read("key", key)?)
        .map_err(|_| TlsError::file("key", key, "holds no private key in PEM"))?;
    let pair = CertifiedKey::from_der(chain, private, &ring::default_provider());
    let pair = pair.map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let reason = format_args!("is not the key of the certificate in {}", cert.display());
            TlsError::file("key", key, reason)
        }
        rustls::Error::InvalidCertificate(_) => {
            TlsError::file("cert", cert, format_args!("cannot be used: {error}"))
        }
        error => TlsError::file("key", key, format_args!("cannot be used: {error}")),
    })?;
    Ok(Arc::new(SingleCertAndKey::from(pair)))
}

#[cfg(test)]
mod tests {
    use super::{testing::Authority, *};

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (authority, other) = (Authority::new(), Authority::new());
        let [cert, key] = authority.issue(folder.path(), "own");
        let [_, other_key] = other.issue(folder.path(), "other");
        let [empty, garbage, absent] =
            ["empty.pem", "garbage.pem", "absent.pem"].map(|name| folder.path().join(name));
        fs::write(&empty, "").unwrap();
        let text = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n";
        fs::write(&garbage, text).unwrap();
        assert!(identity(&cert, &key).is_ok());
        for (cert, key, named, key_of, reason) in [
            (&absent, &key, &absent, "cert", "cannot be read: No such file or directory"),
            (&cert, &absent, &absent, "key", "cannot be read: No such file or directory"),
            (&empty, &key, &empty, "cert", "holds no certificate in PEM"),
            (&key, &key, &key, "cert", "holds no certificate in PEM"),
            (&garbage, &key, &garbage, "cert", "cannot be used: invalid peer certificate"),
            (&cert, &cert, &cert, "key", "holds no private key in PEM"),
            (&cert, &other_key, &other_key, "key", "is not the key of the certificate in "),
        ] {
            let error = identity(cert, key).unwrap_err();
            let wanted = format!("{}: {reason}", named.display());
            assert_eq!(error.key, key_of, "{error}");
            assert!(error.message.starts_with(&wanted), "{error}, wanted {wanted}");
        }
        assert!(roots("ca", &garbage).unwrap_err().message.contains("cannot be used"));
    }
}
