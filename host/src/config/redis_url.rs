//! Where Redis is: one server, one that sentinels name, or a cluster.

use std::fmt;

use redis::{Client, ConnectionAddr};
use serde::{Deserialize, Serialize};

/// The port that sentinels listen on where nothing else is said.
const SENTINEL_PORT: u16 = 26379;

/// `redis://` is a server, `redis+unix://` one on this machine, `redis+sentinel://` the server that
/// sentinels name, and `redis+cluster://` a cluster; `rediss` in place of `redis` is TLS.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RedisUrl {
    text: String,
    server: Client,
    topology: Topology,
}

/// How the server is found that holds a key.
#[derive(Clone)]
pub(crate) enum Topology {
    /// There is one alone.
    Single,
    /// These sentinels name the primary of the service.
    Sentinel { sentinels: Vec<Client>, service: String },
    /// Each of these nodes knows.
    Cluster { nodes: Vec<Client> },
}

impl RedisUrl {
    /// A client without a connection: with the password and the database of whoever holds the keys,
    /// and with the place, where that is known.
    pub(crate) const fn server(&self) -> &Client {
        &self.server
    }

    /// How the server is found that holds a key.
    pub(crate) const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Whether TLS is spoken there.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.server.get_connection_info().addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Who is asked first, for messages: without what is secret.
    pub(crate) fn places(&self) -> String {
        let asked = match &self.topology {
            Topology::Single => std::slice::from_ref(&self.server),
            Topology::Sentinel { sentinels: asked, .. } | Topology::Cluster { nodes: asked } => {
                asked
            }
        };
        let places = asked.iter().map(|client| client.get_connection_info().addr().to_string());
        places.collect::<Vec<_>>().join(",")
    }

    fn parse(text: &str) -> Result<(Client, Topology), String> {
        let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
        let (user, places, path) = parts(rest);
        match scheme.split_once('+') {
            Some((scheme @ ("redis" | "rediss"), "sentinel")) => {
                let (service, database) = path.split_once('/').unwrap_or((path, "0"));
                if service.is_empty() {
                    return Err("wanted the service's name after the sentinels, as in \
                                redis+sentinel://a:26379,b:26379/name/0"
                        .to_owned());
                }
                let places = places.split(',').map(with_port);
                let sentinels = places.map(|place| open(&format!("{scheme}://{place}")));
                let sentinels = sentinels.collect::<Result<_, _>>()?;
                // Whose place the sentinels know.
                let server = open(&format!("{scheme}://{user}localhost/{database}"))?;
                Ok((server, Topology::Sentinel { sentinels, service: service.to_owned() }))
            }
            Some((scheme @ ("redis" | "rediss"), "cluster")) => {
                if !path.is_empty() {
                    return Err(
                        "a cluster has no databases, wanted nothing after the nodes, as in \
                                redis+cluster://a:6379,b:6379"
                            .to_owned(),
                    );
                }
                let nodes = places.split(',').map(|node| open(&format!("{scheme}://{user}{node}")));
                let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
                let server = nodes.first().cloned().ok_or("wanted a node")?;
                Ok((server, Topology::Cluster { nodes }))
            }
            _ if text.contains(',') => Err("wanted the URL of one server, or of several with \
                                            redis+sentinel:// or redis+cluster://"
                .to_owned()),
            _ => Ok((open(text)?, Topology::Single)),
        }
    }
}

/// User and password with their `@`, places, and what follows the first slash.
fn parts(rest: &str) -> (&str, &str, &str) {
    let (places, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, places) = places.split_at(places.rfind('@').map_or(0, |at| at + 1));
    (user, places, path)
}

fn with_port(place: &str) -> String {
    let port = place.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.map_or_else(|| format!("{place}:{SENTINEL_PORT}"), |_| place.to_owned())
}

/// Whether all keys that start with `prefix` are in one slot of a cluster, because of what stands
/// between its first `{` and the next `}`.
pub(super) fn has_hash_tag(prefix: &str) -> bool {
    let tag = prefix.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

/// The text may hold a password: it is not repeated.
fn open(url: &str) -> Result<Client, String> {
    Client::open(url).map_err(|error| {
        format!("wanted a URL such as redis://user:password@127.0.0.1:6379/0: {error}")
    })
}

impl Default for RedisUrl {
    fn default() -> Self {
        // Nothing is wrong with it.
        #[expect(clippy::expect_used, reason = "it is the same each time; a test reads it")]
        Self::try_from("redis://127.0.0.1:6379".to_owned()).expect("a URL")
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (server, topology) = Self::parse(&text)?;
        Ok(Self { text, server, topology })
    }
}

impl From<RedisUrl> for String {
    fn from(url: RedisUrl) -> Self {
        url.text
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RedisUrl {
        RedisUrl::try_from(text.to_owned()).unwrap()
    }

    /// Place, password and database of the server, then who is asked for it.
    fn told(text: &str) -> (String, Option<String>, i64, String) {
        let url = read(text);
        let info = url.server().get_connection_info();
        let redis = info.redis_settings();
        let password = redis.password().map(str::to_owned);
        (info.addr().to_string(), password, redis.db(), url.places())
    }

    #[test]
    fn one_server_is_asked_itself() {
        let (place, password, database, asked) = told("redis://me:pw@a:1/2");
        assert_eq!(
            (&*place, password.as_deref(), database, &*asked),
            ("a:1", Some("pw"), 2, "a:1")
        );
        assert!(matches!(read("redis+unix:///run/redis.sock").topology(), Topology::Single));
        assert!(read("rediss://a:1").is_tls() && !read("redis://a:1").is_tls());
    }

    #[test]
    fn sentinels_are_asked_for_a_service_without_the_password() {
        let text = "redis+sentinel://me:p%40w@a:1,b,[::1]:2,[::1]/fleet/3";
        let (_, password, database, asked) = told(text);
        assert_eq!((password.as_deref(), database), (Some("p@w"), 3));
        assert_eq!(asked.split(',').count(), 4, "{asked}");
        assert!(asked.starts_with("a:1,b:26379,"), "{asked}");
        let url = read(text);
        let Topology::Sentinel { sentinels, service } = url.topology() else { panic!("{text}") };
        assert_eq!(service, "fleet");
        for sentinel in sentinels {
            assert_eq!(sentinel.get_connection_info().redis_settings().password(), None);
        }
        assert!(read("rediss+sentinel://a/fleet").is_tls());
    }

    #[test]
    fn nodes_of_a_cluster_share_a_password() {
        let url = read("redis+cluster://:pw@a:1,b:2");
        let Topology::Cluster { nodes } = url.topology() else { panic!("no cluster") };
        assert_eq!(url.places(), "a:1,b:2");
        for node in nodes {
            assert_eq!(node.get_connection_info().redis_settings().password(), Some("pw"));
        }
    }

    #[test]
    fn what_is_no_place_is_refused_and_not_repeated() {
        for text in [
            "",
            "a:1",
            "http://x:pw@a:1",
            "redis://x:pw@a:1,b:1",
            "redis+sentinel://x:pw@a:1",
            "redis+sentinel://x:pw@/name",
            "redis+sentinel://x:pw@a:1/name/zero",
            "redis+cluster://x:pw@a:1/0",
            "redis+cluster://x:pw@",
            "redis+cluster://x:pw@a:1,",
            "redis+zoo://x:pw@a:1",
        ] {
            let refused = RedisUrl::try_from(text.to_owned()).unwrap_err();
            assert!(refused.contains("wanted") && !refused.contains("pw@"), "{text}: {refused}");
        }
    }
}
