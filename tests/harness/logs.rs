//! Log records, as the [`Collector`](crate::Collector) receives them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_server::LogsService,
    },
    logs::v1::ResourceLogs,
};
use serde_json::Value;

use crate::collector::{Store, hex, plain, value};

/// One log record as it arrived.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// 32 hex digits; empty outside of a trace.
    pub trace_id: String,
    /// 16 hex digits; empty outside of a span.
    pub span_id: String,
    /// The W3C flags.
    pub flags: u32,
    /// `INFO` and so on.
    pub severity: String,
    /// The message.
    pub body: Value,
    /// The attributes.
    pub attributes: BTreeMap<String, Value>,
    /// The instrumentation scope's name: the part of the host that speaks.
    pub scope: String,
    /// The attributes of the resource.
    pub resource: BTreeMap<String, Value>,
}

#[tonic::async_trait]
impl LogsService for Store {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.keep_logs(request.into_inner());
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

/// The records of one resource.
pub(crate) fn flatten(logs: ResourceLogs) -> impl Iterator<Item = LogRecord> {
    let resource = plain(logs.resource.map(|resource| resource.attributes).unwrap_or_default());
    logs.scope_logs.into_iter().flat_map(move |scope_logs| {
        let scope = scope_logs.scope.map(|scope| scope.name).unwrap_or_default();
        let resource = resource.clone();
        scope_logs.log_records.into_iter().map(move |record| LogRecord {
            trace_id: hex(&record.trace_id),
            span_id: hex(&record.span_id),
            flags: record.flags,
            severity: record.severity_text,
            body: value(record.body),
            attributes: plain(record.attributes),
            scope: scope.clone(),
            resource: resource.clone(),
        })
    })
}
