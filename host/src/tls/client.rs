//! Whom calls trust, and what they show of themselves.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, client::ResolvesClientCert};

use super::{TlsError, identity, roots};
use crate::config;

/// The files of a `tls` table for connections to others, read.
#[derive(Clone)]
pub(crate) struct ClientFiles {
    /// In place of the system's.
    roots: Option<Arc<RootCertStore>>,
    own: Option<Arc<dyn ResolvesClientCert>>,
}

impl ClientFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be used, or a certificate without its key.
    pub(crate) fn read(tls: &config::ClientTls) -> Result<Self, TlsError> {
        let incomplete = |key, there| TlsError {
            key,
            message: format!("wanted cert and key, found only {there}"),
        };
        let own: Option<Arc<dyn ResolvesClientCert>> = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => Some(identity(cert, key)?),
            (Some(_), None) => return Err(incomplete("cert", "cert")),
            (None, Some(_)) => return Err(incomplete("key", "key")),
            (None, None) => None,
        };
        let roots = tls.ca.as_ref().map(|ca| roots("ca", ca)).transpose()?;
        Ok(Self { roots, own })
    }

    /// How to connect, without ALPN. Blocks for some milliseconds where it reads the system's roots.
    ///
    /// # Errors
    /// There is not one root on the system.
    pub(crate) fn config(&self) -> io::Result<ClientConfig> {
        let roots = self.roots.clone().map_or_else(system_roots, Ok)?;
        let builder = ClientConfig::builder().with_root_certificates(roots);
        Ok(match &self.own {
            Some(own) => builder.with_client_cert_resolver(Arc::clone(own)),
            None => builder.with_no_client_auth(),
        })
    }
}

/// The authorities that the system trusts: where they are is OpenSSL's convention, `SSL_CERT_FILE`
/// and `SSL_CERT_DIR` included.
fn system_roots() -> io::Result<Arc<RootCertStore>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that cannot be read is one that nobody is trusted for.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(io::Error::other(format!("the system has no root certificates{reason}")));
    }
    Ok(Arc::new(roots))
}
