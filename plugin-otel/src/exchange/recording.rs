//! A span under way.

use std::{mem, sync::Arc};

use plugin_api::{Context, End, Header, Outcome, Peer, ResponseHead, Version};

use super::{
    Follow, Tracing,
    end::{self, GrpcStatus},
};
use crate::{
    record::{Kind, Link, Record},
    semconv,
    short::Short,
};

/// A span under way. Dropped without an end, it ends as cancelled.
#[derive(Debug)]
pub(super) struct Recording {
    /// `None` once it is handed over.
    record: Option<Box<Record>>,
    pub(super) tracing: Arc<Tracing>,
    /// The context of the span.
    pub(super) context: Context,
    follow: Follow,
    /// 0 until there is one.
    status: u32,
    grpc_status: Option<GrpcStatus>,
}

impl Recording {
    /// Follows the span of this record, which begins now.
    pub(super) fn begin(
        tracing: &Arc<Tracing>,
        context: &Context,
        record: Box<Record>,
        follow: Follow,
    ) -> Self {
        tracing.count_recorded(&follow);
        Self {
            record: Some(record),
            tracing: Arc::clone(tracing),
            context: context.clone(),
            follow,
            status: 0,
            grpc_status: None,
        }
    }

    /// A span between this one and its parent, which began when this one did.
    pub(super) fn insert_parent(&mut self, name: &'static str) -> Option<Self> {
        let record = self.record.as_mut()?;
        let span = self.tracing.sibling(self.context.span());
        let context = self.context.with_span(span);
        let mut above = Record::begin(Kind::Internal, &context, None, name, record.start);
        above.parent_span_id = record.parent_span_id;
        above.parent_is_remote = record.parent_is_remote;
        record.parent_span_id = span.span_id;
        record.parent_is_remote = false;
        let follow = self.follow.parent(span.span_id);
        Some(Self::begin(&self.tracing, &context, above, follow))
    }

    /// A span below this one that is linked to it, too, because it outlives it.
    pub(super) fn follow(&self, name: &[&str]) -> Self {
        let own = self.context.span();
        let context = self.context.with_span(self.tracing.sibling(own));
        let now = self.tracing.clock.now();
        let mut next = Record::begin(Kind::Internal, &context, Some(own), "", now);
        next.rename(name);
        let mut next = Self::begin(&self.tracing, &context, next, self.follow.leaf());
        next.link(&self.context, false);
        next
    }

    /// A number that OTLP cannot hold becomes the largest that it can.
    pub(super) fn set_number(&mut self, key: &str, number: impl TryInto<i64>) {
        if let Some(record) = &mut self.record {
            record.number(key, number.try_into().unwrap_or(i64::MAX));
        }
    }

    /// An empty text is none.
    pub(super) fn set_text(&mut self, key: &str, text: &str) {
        if let Some(record) = &mut self.record {
            record.text_if_any(key, text);
        }
    }

    /// What the exchange goes by.
    pub(super) fn set_connection(&mut self, version: Version, peer: Peer) {
        if let Some(record) = &mut self.record {
            record.connection(version, peer);
        }
    }

    /// Where a connection leads that brought nothing.
    pub(super) fn set_peer(&mut self, peer: Peer) {
        if let Some(record) = &mut self.record {
            record.peer(peer);
        }
    }

    pub(super) fn set_flag(&mut self, key: &str, flag: bool) {
        if let Some(record) = &mut self.record {
            record.flag(key, flag);
        }
    }

    /// The new name comes in parts, which need not be joined before.
    pub(super) fn rename(&mut self, parts: &[&str]) {
        if let Some(record) = &mut self.record {
            record.rename(parts);
        }
    }

    /// Links to the span of another context.
    pub(super) fn link(&mut self, to: &Context, is_remote: bool) {
        if let Some(record) = &mut self.record {
            let link = Link { span: to.span(), tracestate: to.tracestate(), is_remote };
            record.link(&link, &[]);
        }
    }

    /// The response head has come or goes.
    pub(super) fn respond(&mut self, head: &ResponseHead<'_>) {
        self.judge(head);
        let now = self.tracing.clock.now();
        if let Some(record) = &mut self.record {
            record.number(semconv::HTTP_RESPONSE_STATUS_CODE, head.status().into());
            let took = seconds(now.saturating_sub(record.start));
            record.fraction(semconv::EXCHANGE_TIME_TO_FIRST_BYTE, took);
            self.tracing.response_headers.record(&self.tracing, head.headers(), record);
        }
    }

    /// The response head of what this span is a whole of: only its status counts here.
    pub(super) fn judge(&mut self, head: &ResponseHead<'_>) {
        self.status = head.status();
        self.grpc_status = GrpcStatus::among(head.headers());
    }

    pub(super) fn trailers(&mut self, trailers: &[Header<'_>]) {
        self.set_number(semconv::EXCHANGE_TRAILERS, trailers.len());
        self.grpc_status = GrpcStatus::among(trailers).or(self.grpc_status);
    }

    /// The end, with the bytes of both bodies.
    pub(super) fn end(&mut self, end: &End) {
        if end.request_bytes > 0 {
            self.set_number(semconv::HTTP_REQUEST_BODY_SIZE, end.request_bytes);
        }
        if end.response_bytes > 0 {
            self.set_number(semconv::HTTP_RESPONSE_BODY_SIZE, end.response_bytes);
        }
        self.finish(end.outcome, end.monotonic());
    }

    /// The end, at this time of the monotonic clock where that is told.
    pub(super) fn finish(&mut self, outcome: Outcome, monotonic: Option<u64>) {
        let Some(record) = &mut self.record else { return };
        let (reason, fault) = end::describe(outcome);
        record.text(semconv::EXCHANGE_END_REASON, reason);
        let mut grpc_error = None;
        if let Some(status) = self.grpc_status {
            record.number(semconv::RPC_GRPC_STATUS_CODE, status.code().into());
            grpc_error = status.error(record.kind);
        }
        record.is_error = true;
        if let Some(fault) = fault {
            record.text(semconv::ERROR_TYPE, fault);
        } else if end::is_bad_status(record.kind, self.status) {
            record.shown(semconv::ERROR_TYPE, &Short::of(self.status));
        } else if let Some(error) = grpc_error {
            record.text(semconv::ERROR_TYPE, error);
        } else {
            record.is_error = false;
        }
        // The wall clock may be set meanwhile, and a span must not end before it starts.
        record.end = self.tracing.clock.told(monotonic).max(record.start);
        if let Some(record) = self.record.take() {
            let follow = mem::replace(&mut self.follow, Follow::Sampled);
            self.tracing.finish(record, follow);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.finish(Outcome::CLIENT_GONE, None);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a microsecond in a century")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
