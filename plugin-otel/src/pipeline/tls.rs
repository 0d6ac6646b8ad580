//! TLS on the way to a collector: rustls, with ring for cryptography.

use std::{fs, sync::Arc};

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use plugin_api::{ErrorKind, PluginError};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::{Destination, File};

/// Makes the connections that `http` makes ones over TLS where the endpoint wants it, and asks for
/// the protocol `alpn`.
///
/// # Errors
/// A file that cannot be used, or no root certificate on the system.
pub(super) fn connector(
    mut http: HttpConnector,
    destination: &Destination,
    alpn: &[u8],
) -> Result<HttpsConnector<HttpConnector>, PluginError> {
    http.enforce_http(false);
    let mut config = if destination.endpoint.starts_with("https://") {
        client_config(destination)?
    } else {
        let nobody = RootCertStore::empty();
        ClientConfig::builder().with_root_certificates(nobody).with_no_client_auth()
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(HttpsConnector::from((http, config)))
}

fn client_config(destination: &Destination) -> Result<ClientConfig, PluginError> {
    let tls = &destination.tls;
    let roots = match &tls.ca {
        Some(ca) => roots(ca)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder().with_root_certificates(Arc::new(roots));
    let (cert, key) = match (&tls.cert, &tls.key) {
        (None, None) => return Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => (cert, key),
        (Some(one), None) | (None, Some(one)) => {
            return Err(one.wrong("wanted both tls.cert and tls.key, found only this"));
        }
    };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| key.wrong("holds no private key in PEM"))?;
    let unusable = |error| {
        let reason = format_args!("cannot be used with {}: {error}", key.path.display());
        cert.wrong(reason)
    };
    builder.with_client_auth_cert(certificates(cert)?, private).map_err(unusable)
}

fn read(file: &File) -> Result<Vec<u8>, PluginError> {
    let unreadable = |error| file.wrong(format_args!("cannot be read: {error}"));
    fs::read(&file.path).map_err(unreadable)
}

fn certificates(file: &File) -> Result<Vec<CertificateDer<'static>>, PluginError> {
    let pem = read(file)?;
    let all = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| file.wrong(format_args!("is no PEM: {error}")))?;
    if all.is_empty() {
        return Err(file.wrong("holds no certificate in PEM"));
    }
    Ok(all)
}

fn roots(file: &File) -> Result<RootCertStore, PluginError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let unusable = |error| file.wrong(format_args!("cannot be used: {error}"));
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

/// The authorities that the system trusts.
fn system_roots() -> Result<RootCertStore, PluginError> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read is one that nobody is trusted for.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let message = "the system has no root certificates: install them, or set tls.ca";
        return Err(PluginError::new(ErrorKind::OTHER, message));
    }
    Ok(roots)
}
