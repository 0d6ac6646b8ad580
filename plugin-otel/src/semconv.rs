//! Every name of the OpenTelemetry semantic conventions that appears in our spans and resource.

/// The instrumentation scope of the spans of exchanges.
pub(crate) const SCOPE: &str = "plugin-otel";

/// The newest schema that has every name below; the next one renames `peer.service`.
pub(crate) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.38.0";

pub(crate) const CLIENT_ADDRESS: &str = "client.address";
pub(crate) const ERROR_TYPE: &str = "error.type";
/// Our own: how the exchange ended, in words.
pub(crate) const EXCHANGE_END_REASON: &str = "exchange.end_reason";
pub(crate) const HTTP_REQUEST_BODY_SIZE: &str = "http.request.body.size";
pub(crate) const HTTP_REQUEST_METHOD: &str = "http.request.method";
pub(crate) const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
pub(crate) const HTTP_RESPONSE_BODY_SIZE: &str = "http.response.body.size";
pub(crate) const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
pub(crate) const HTTP_ROUTE: &str = "http.route";
pub(crate) const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub(crate) const NETWORK_PEER_PORT: &str = "network.peer.port";
pub(crate) const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
pub(crate) const PEER_SERVICE: &str = "peer.service";
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const SERVER_PORT: &str = "server.port";
pub(crate) const URL_FULL: &str = "url.full";
pub(crate) const URL_PATH: &str = "url.path";
pub(crate) const URL_QUERY: &str = "url.query";
pub(crate) const URL_SCHEME: &str = "url.scheme";
pub(crate) const USER_AGENT_ORIGINAL: &str = "user_agent.original";

pub(crate) const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Our own: the name that the operator gave the instance.
pub(crate) const SERVICE_INSTANCE_NAME: &str = "service.instance.name";
pub(crate) const SERVICE_NAME: &str = "service.name";
pub(crate) const SERVICE_VERSION: &str = "service.version";

/// The value of [`HTTP_REQUEST_METHOD`] for a method that is not known.
pub(crate) const OTHER_METHOD: &str = "_OTHER";
