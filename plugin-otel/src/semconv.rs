//! Every name of the OpenTelemetry semantic conventions that appears in our spans, resource and
//! attributes of metrics.

/// The instrumentation scope of the spans of exchanges.
pub(crate) const SCOPE: &str = "plugin-otel";

/// The newest schema that has every name below; the next one renames `peer.service`.
pub(crate) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.38.0";

pub(crate) const CLIENT_ADDRESS: &str = "client.address";
pub(crate) const CODE_FILE_PATH: &str = "code.file.path";
pub(crate) const CODE_FUNCTION_NAME: &str = "code.function.name";
pub(crate) const CODE_LINE_NUMBER: &str = "code.line.number";
pub(crate) const ERROR_TYPE: &str = "error.type";
/// Our own: how the exchange ended, in words.
pub(crate) const EXCHANGE_END_REASON: &str = "exchange.end_reason";
/// Our own: whether a call went over a connection that had carried another before.
pub(crate) const EXCHANGE_POOLED_CONNECTION: &str = "exchange.pooled_connection";
/// Our own: seconds from the start of the span until its response head.
pub(crate) const EXCHANGE_TIME_TO_FIRST_BYTE: &str = "exchange.time_to_first_byte";
/// Our own: how many trailers came after the body.
pub(crate) const EXCHANGE_TRAILERS: &str = "exchange.trailers";
pub(crate) const EXCEPTION_MESSAGE: &str = "exception.message";
pub(crate) const EXCEPTION_STACKTRACE: &str = "exception.stacktrace";
pub(crate) const HTTP_REQUEST_BODY_SIZE: &str = "http.request.body.size";
/// The header's name follows.
pub(crate) const HTTP_REQUEST_HEADER: &str = "http.request.header.";
pub(crate) const HTTP_REQUEST_METHOD: &str = "http.request.method";
pub(crate) const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
pub(crate) const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
pub(crate) const HTTP_RESPONSE_BODY_SIZE: &str = "http.response.body.size";
/// The header's name follows.
pub(crate) const HTTP_RESPONSE_HEADER: &str = "http.response.header.";
pub(crate) const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
pub(crate) const HTTP_ROUTE: &str = "http.route";
pub(crate) const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub(crate) const NETWORK_PEER_PORT: &str = "network.peer.port";
pub(crate) const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
pub(crate) const OTEL_COMPONENT_NAME: &str = "otel.component.name";
pub(crate) const OTEL_COMPONENT_TYPE: &str = "otel.component.type";
pub(crate) const OTEL_SPAN_SAMPLING_RESULT: &str = "otel.span.sampling_result";
pub(crate) const PEER_SERVICE: &str = "peer.service";
pub(crate) const RPC_GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const SERVER_PORT: &str = "server.port";
/// Our own: what came from the client over a connection that has changed its protocol.
pub(crate) const TUNNEL_BYTES_FROM_CLIENT: &str = "tunnel.bytes_from_client";
/// Our own: what went to the client over such a connection.
pub(crate) const TUNNEL_BYTES_TO_CLIENT: &str = "tunnel.bytes_to_client";
pub(crate) const URL_FULL: &str = "url.full";
pub(crate) const URL_PATH: &str = "url.path";
pub(crate) const URL_QUERY: &str = "url.query";
pub(crate) const URL_SCHEME: &str = "url.scheme";
pub(crate) const USER_AGENT_ORIGINAL: &str = "user_agent.original";

pub(crate) const AWS_ECS_CONTAINER_ARN: &str = "aws.ecs.container.arn";
pub(crate) const CLOUD_PLATFORM: &str = "cloud.platform";
pub(crate) const CLOUD_RESOURCE_ID: &str = "cloud.resource_id";
pub(crate) const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Our own: the name that the operator gave the instance.
pub(crate) const SERVICE_INSTANCE_NAME: &str = "service.instance.name";
pub(crate) const SERVICE_NAME: &str = "service.name";
pub(crate) const SERVICE_VERSION: &str = "service.version";

/// The value of [`HTTP_REQUEST_METHOD`] for a method that is not known.
pub(crate) const OTHER_METHOD: &str = "_OTHER";
