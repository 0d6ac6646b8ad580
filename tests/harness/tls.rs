//! Authorities that nobody else knows, and both ends of TLS.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// An authority, and the files of the certificates that it has given out. Dropped, they are gone.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate for loopback, and its private key: two files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority.
    ///
    /// # Panics
    /// When there is no place for its files.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Under the same name it would be taken for another key of the same authority.
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(&folder.path().join("ca.pem"), "CERTIFICATE", issuer.der());
        Self { issuer, folder }
    }

    /// The file with its own certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A new certificate and its key, in files whose names begin with `name`; those of an earlier
    /// one are overwritten.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[must_use]
    pub fn issue(&self, name: &str) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let own = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&own, &self.issuer).expect("a certificate");
        let file = |part: &str| self.folder.path().join(format!("{name}-{part}.pem"));
        let (cert, key) = (file("cert"), file("key"));
        write(&cert, "CERTIFICATE", certificate.der());
        write(&key, "PRIVATE KEY", &own.serialize_der());
        Pair { cert, key }
    }

    /// A connection to `address` by a client that trusts this authority alone.
    ///
    /// # Errors
    /// No connection, or no handshake.
    ///
    /// # Panics
    /// Never: the authority's certificate is in order.
    pub async fn connect(
        &self,
        address: SocketAddr,
    ) -> std::io::Result<client::TlsStream<TcpStream>> {
        let config = ClientConfig::builder().with_root_certificates(self.roots());
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let name = ServerName::try_from("localhost").expect("a name");
        connector.connect(name, TcpStream::connect(address).await?).await
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        Arc::new(roots)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn write(path: &Path, kind: &str, der: &[u8]) {
    let text = BASE64_STANDARD.encode(der);
    let text = format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n");
    fs::write(path, text).expect("a writable folder");
}

/// Takes TLS off in front of a plain server on loopback.
#[derive(Debug)]
pub struct Terminator {
    address: SocketAddr,
    handshakes: watch::Sender<Vec<Handshake>>,
    task: JoinHandle<()>,
}

/// What a client and a [`Terminator`] have agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The protocol of ALPN.
    pub alpn: Option<String>,
    /// The name that the client wanted.
    pub server_name: Option<String>,
    /// Whether the client has shown a certificate.
    pub has_client_certificate: bool,
}

impl Terminator {
    /// In front of the server at `url`, with a certificate of `authority`; offers the protocols
    /// `alpn`, and lets in only clients with a certificate of `clients`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn before(
        url: &str,
        authority: &Authority,
        alpn: &[&str],
        clients: Option<&Authority>,
    ) -> Self {
        let builder = match clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder(clients.roots()).build();
                ServerConfig::builder().with_client_cert_verifier(verifier.expect("a root"))
            }
        };
        let pair = authority.issue("terminator");
        let cert = CertificateDer::from_pem_file(&pair.cert).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
        let mut config = builder.with_single_cert(vec![cert], key).expect("a pair");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let place = url.trim_start_matches("http://").to_owned();
        let handshakes = watch::Sender::new(Vec::new());
        let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), handshakes.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(acceptor.clone(), stream, place.clone(), seen.clone()));
            }
        });
        Self { address, handshakes, task }
    }

    /// The base URL of what is behind it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The handshakes that have gone well so far.
    #[must_use]
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.borrow().clone()
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handshake {
    fn of(stream: &server::TlsStream<TcpStream>) -> Self {
        let (_, connection) = stream.get_ref();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            alpn: connection.alpn_protocol().map(text),
            server_name: connection.server_name().map(str::to_owned),
            has_client_certificate: connection.peer_certificates().is_some(),
        }
    }
}

/// Whatever breaks here is for the test to judge.
async fn pass(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    place: String,
    seen: watch::Sender<Vec<Handshake>>,
) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    seen.send_modify(|all| all.push(Handshake::of(&stream)));
    let Ok(mut server) = TcpStream::connect(place).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
}
