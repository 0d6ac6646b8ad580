//! The server that holds the keys: the one in the URL, the one that sentinels name, or the node of a
//! cluster. It may be another one each time it is looked for.

use std::{io, path::Path};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, RedisError, RedisResult,
    TlsCertificates, Value, aio::MultiplexedConnection,
};

use super::TIMEOUT;
use crate::{
    config::{self, Topology},
    tls::{self, ClientFiles, TlsError},
};

/// `discovery.redis.url` and `discovery.redis.tls`.
pub(super) struct Primary {
    url: config::RedisUrl,
    certificates: Option<TlsCertificates>,
}

/// A server that was found, and a connection to it.
pub(super) type Found = (Client, MultiplexedConnection);

impl Primary {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// A file of `discovery.redis.tls` that cannot be used.
    pub(super) fn new(config: &config::Redis) -> Result<Self, TlsError> {
        let certificates = config.url.is_tls().then(|| certificates(&config.tls)).transpose()?;
        let primary = Self { url: config.url.clone(), certificates };
        let usable = primary.secured(primary.url.server());
        usable.map_err(|error| TlsError { key: "ca", message: error.to_string() })?;
        Ok(primary)
    }

    /// Finds and connects to the server that holds `key`.
    pub(super) async fn connect(&self, key: &str) -> RedisResult<Found> {
        let (seeds, service) = match self.url.topology() {
            Topology::Single => return self.open(self.url.server()).await,
            Topology::Sentinel { sentinels, service } => (sentinels, Some(service)),
            Topology::Cluster { nodes } => (nodes, None),
        };
        let mut failed = other("nobody to ask".to_owned());
        for seed in seeds {
            let found = match service {
                Some(service) => self.named_by(seed, service).await,
                None => self.known_to(seed, key).await,
            };
            match found {
                Ok(found) => return Ok(found),
                Err(error) => {
                    failed = other(format!("{}: {error}", seed.get_connection_info().addr()));
                }
            }
        }
        Err(failed)
    }

    /// The primary of `service`, as a sentinel knows it.
    async fn named_by(&self, sentinel: &Client, service: &str) -> RedisResult<Found> {
        let (_, mut sentinel) = self.open(sentinel).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let place: Option<(String, u16)> = ask.query_async(&mut sentinel).await?;
        let Some((host, port)) = place else {
            return Err(other(format!("this sentinel knows no service {service:?}")));
        };
        let primary = self.at(host, port)?;
        let (primary, mut connection) = self.open(&primary).await?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        if role.first() == Some(&Value::BulkString(b"master".to_vec())) {
            return Ok((primary, connection));
        }
        // Sentinels may not have agreed on the next one yet.
        let place = primary.get_connection_info().addr();
        Err(other(format!("{place}, which it names, is not the primary of {service:?}")))
    }

    /// The node that holds `key`, as another knows it.
    async fn known_to(&self, node: &Client, key: &str) -> RedisResult<Found> {
        let (node, mut connection) = self.open(node).await?;
        let held: RedisResult<Value> =
            redis::cmd("TYPE").arg(key).query_async(&mut connection).await;
        let Err(error) = held else { return Ok((node, connection)) };
        let place = error.redirect_node().and_then(|(place, _)| place.rsplit_once(':'));
        match place.map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => self.open(&self.at(host.to_owned(), port)?).await,
            _ => Err(error),
        }
    }

    /// A client of another server than the URL's, asked in the same way.
    fn at(&self, host: String, port: u16) -> RedisResult<Client> {
        let info = self.url.server().get_connection_info().clone();
        let address = if self.url.is_tls() {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        Client::open(info.set_addr(address))
    }

    async fn open(&self, client: &Client) -> RedisResult<Found> {
        let client = self.secured(client)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((client, connection))
    }

    /// The same client with the files of `discovery.redis.tls`.
    fn secured(&self, client: &Client) -> RedisResult<Client> {
        match &self.certificates {
            None => Ok(client.clone()),
            Some(certificates) => {
                Client::build_with_tls(client.get_connection_info().clone(), certificates.clone())
            }
        }
    }
}

fn certificates(tls: &config::ClientTls) -> Result<TlsCertificates, TlsError> {
    // The library reads them too, but does not say which of them is wrong.
    ClientFiles::read(tls)?;
    let pem = |key, file: &Option<_>| file.as_deref().map(|file: &Path| tls::read(key, file));
    let (ca, cert, key) = (pem("ca", &tls.ca), pem("cert", &tls.cert), pem("key", &tls.key));
    Ok(TlsCertificates {
        client_tls: match (cert.transpose()?, key.transpose()?) {
            (Some(client_cert), Some(client_key)) => {
                Some(ClientTlsConfig { client_cert, client_key })
            }
            _ => None,
        },
        root_cert: ca.transpose()?,
    })
}

pub(super) fn other(message: String) -> RedisError {
    io::Error::other(message).into()
}
