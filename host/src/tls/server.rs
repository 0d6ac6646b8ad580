//! The certificate that the host serves with, and its change while it serves.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{TlsError, identity, roots};
use crate::config;

/// How often the files are looked at. A change is taken up when it is seen twice, so that a
/// certificate and its key, which are two files, can be replaced one after the other.
const LOOK: Duration = Duration::from_secs(1);

/// The files of `server.tls`, read.
pub(crate) struct ServerFiles {
    tls: config::ServerTls,
    read_at: Stamps,
    config: Arc<ServerConfig>,
}

/// Which file a path names and when that was changed last; `None` where there is none.
type Stamps = Vec<Option<[u64; 4]>>;

impl ServerFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub(crate) fn read(tls: &config::ServerTls) -> Result<Self, TlsError> {
        let read_at = stamps(tls);
        Ok(Self { tls: tls.clone(), read_at, config: server_config(tls)? })
    }

    /// An acceptor of connections that looks after the files from now on, as long as it lives. To be
    /// called inside a runtime.
    pub(crate) fn follow(self) -> Acceptor {
        let (current, newest) = watch::channel(self.config);
        tokio::spawn(follow(self.tls, self.read_at, current));
        Acceptor(newest)
    }
}

/// Accepts TLS connections with the newest certificate that is in order.
pub(crate) struct Acceptor(watch::Receiver<Arc<ServerConfig>>);

impl Acceptor {
    pub(crate) fn now(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow()))
    }
}

fn server_config(tls: &config::ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = match &tls.client_ca {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder(roots("client-ca", path)?).build();
            let verifier = verifier.map_err(|error| TlsError::file("client-ca", path, error))?;
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(identity(&tls.cert, &tls.key)?);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn follow(
    tls: config::ServerTls,
    mut in_use: Stamps,
    current: watch::Sender<Arc<ServerConfig>>,
) {
    let mut seen = in_use.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = current.closed() => return,
        }
        let now = stamps(&tls);
        let is_settled = now == seen;
        seen = now;
        if !is_settled || seen == in_use {
            continue;
        }
        in_use.clone_from(&seen);
        match server_config(&tls) {
            Ok(config) => {
                current.send_replace(config);
                tracing::info!("server.tls: new connections get the new certificate");
            }
            Err(error) => {
                tracing::warn!("server.tls.{}: {error}; going on as before", error.key);
            }
        }
    }
}

fn stamps(tls: &config::ServerTls) -> Stamps {
    [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| stamp(path))
        .collect()
}

/// Every way of changing a file changes its change time, also one that keeps the modification time.
fn stamp(path: &Path) -> Option<[u64; 4]> {
    let file = fs::metadata(path).ok()?;
    let changed = [file.ctime(), file.ctime_nsec()].map(i64::cast_unsigned);
    Some([file.dev(), file.ino(), changed[0], changed[1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Authority;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_taken_up_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let issue = || Authority::new().issue(folder.path(), "own");
        let [cert, key] = issue();
        let tls = config::ServerTls { cert: cert.clone(), key, client_ca: None };
        let mut newest = ServerFiles::read(&tls).unwrap().follow().0;

        let mut replace = async |broken: bool| {
            if broken {
                fs::write(&cert, "broken").unwrap();
            } else {
                issue();
            }
            tokio::time::timeout(LOOK * 3, newest.changed()).await.is_ok()
        };
        assert!(replace(false).await);
        assert!(!replace(true).await);
        assert!(replace(false).await, "also after a broken one");
    }
}
