//! The pipeline with an exporter that does what a test tells it.

use std::{sync::Arc, time::Duration};

use plugin_api::{Context, ErrorKind, Level, SpanContext};

use super::*;
use crate::{
    record::Kind,
    testing::{Journal, Obedient, Order, PATIENCE, config, pipeline},
};

/// A delay that no test lives to see: what happens, happens for another reason.
const NEVER: Duration = Duration::from_secs(3600);

fn record() -> Record {
    let context = Context::new(SpanContext::new([1; 16], [2; 8], 1));
    Record::begin(Kind::Server, &context, None, "GET", 1)
}

/// A pipeline for queues and batches of this size.
fn start(queue: usize, batch: usize, journal: &Journal) -> (Arc<Pipeline>, Obedient) {
    let config = Config {
        max_queue_size: queue,
        max_export_batch_size: batch,
        schedule_delay: NEVER,
        timeout: NEVER,
        ..config("always_on")
    };
    pipeline(&config, journal)
}

fn finish(pipeline: &Pipeline, count: usize) {
    for _ in 0..count {
        pipeline.finish(record());
    }
}

fn counts(pipeline: &Pipeline) -> (u64, u64) {
    let counts = pipeline.counts();
    (counts.exported, counts.dropped)
}

#[test]
fn a_full_batch_is_exported_at_once_and_the_rest_waits() {
    let (pipeline, exporter) = start(100, 3, &Journal::default());
    finish(&pipeline, 3);
    exporter.wait_for_calls(1);
    finish(&pipeline, 2);
    pipeline.flush(PATIENCE).unwrap();
    assert_eq!(exporter.batch_sizes(), [3, 2]);
    assert_eq!((counts(&pipeline), pipeline.queued()), ((5, 0), 0));
}

#[test]
fn a_span_is_exported_when_its_delay_has_passed() {
    let config = Config { schedule_delay: Duration::from_millis(1), ..config("always_on") };
    let (pipeline, exporter) = pipeline(&config, &Journal::default());
    finish(&pipeline, 1);
    exporter.wait_for_calls(1);
}

#[test]
fn a_full_queue_drops_the_newest_and_says_so_once() {
    let journal = Journal::default();
    let (pipeline, exporter) = start(4, 2, &journal);
    exporter.order(Order::Block);
    finish(&pipeline, 2);
    exporter.wait_for_calls(1);
    finish(&pipeline, 7);
    assert_eq!(counts(&pipeline), (0, 3));
    assert_eq!(pipeline.queued(), 6, "two with the exporter, four in the queue");
    exporter.order(Order::Take);
    pipeline.flush(PATIENCE).unwrap();
    assert_eq!(counts(&pipeline), (6, 3));
    assert_eq!(journal.lines().len(), 1, "{:?}", journal.lines());
    assert!(journal.text().contains("the queue of 4 spans is full"), "{}", journal.text());
}

#[test]
fn a_failure_is_a_state_and_each_change_is_one_line() {
    let journal = Journal::default();
    let (pipeline, exporter) = start(100, 50, &journal);
    exporter.order(Order::Fail);
    for _ in 0..3 {
        finish(&pipeline, 1);
        let error = pipeline.flush(PATIENCE).unwrap_err();
        assert_eq!(error.message(), "spans lost: 1 (told to fail)");
    }
    let export = pipeline.export();
    assert!(export.is_failing);
    assert_eq!(export.last_error.as_deref(), Some("told to fail"));
    exporter.order(Order::Take);
    for _ in 0..3 {
        finish(&pipeline, 1);
        pipeline.flush(PATIENCE).unwrap();
    }
    assert!(!pipeline.export().is_failing);
    assert_eq!(counts(&pipeline), (3, 3));
    let levels: Vec<Level> = journal.lines().into_iter().map(|(level, _)| level).collect();
    assert_eq!(levels, [Level::WARN, Level::INFO]);
    assert!(journal.text().contains("told to fail"), "{}", journal.text());
    assert!(journal.text().contains("spans lost: 3"), "{}", journal.text());
}

#[test]
fn a_check_sends_no_span_and_says_what_the_collector_said() {
    let (pipeline, exporter) = start(100, 50, &Journal::default());
    pipeline.check(PATIENCE).unwrap();
    exporter.order(Order::Fail);
    let error = pipeline.check(PATIENCE).unwrap_err();
    assert!(error.to_string().contains("told to fail"), "{error}");
    assert_eq!(counts(&pipeline), (0, 0));
    assert!(!pipeline.export().is_failing);
}

#[test]
fn a_panic_in_the_exporter_is_a_failure_and_no_more() {
    let (pipeline, exporter) = start(100, 50, &Journal::default());
    exporter.order(Order::Panic);
    finish(&pipeline, 2);
    assert!(pipeline.flush(PATIENCE).is_err());
    assert!(pipeline.export().is_failing);
    assert_eq!(counts(&pipeline), (0, 2));
    exporter.order(Order::Take);
    finish(&pipeline, 1);
    pipeline.flush(PATIENCE).unwrap();
    assert_eq!(counts(&pipeline), (1, 2));
}

#[test]
fn an_export_without_an_answer_fails_when_its_time_is_over() {
    let config = Config { timeout: Duration::from_millis(5), ..config("always_on") };
    let (pipeline, exporter) = pipeline(&config, &Journal::default());
    exporter.order(Order::Hang);
    finish(&pipeline, 1);
    let error = pipeline.flush(PATIENCE).unwrap_err();
    assert_eq!(error.message(), "spans lost: 1 (no answer within 5ms)");
}

#[test]
fn a_flush_without_an_answer_ends_at_its_deadline() {
    let (pipeline, exporter) = start(100, 50, &Journal::default());
    exporter.order(Order::Hang);
    finish(&pipeline, 2);
    let error = pipeline.flush(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TIMEOUT);
    assert_eq!(error.message(), "spans still waiting after 20ms: 2");
}

#[test]
fn a_stop_exports_what_waits_and_joins_the_thread() {
    let (pipeline, exporter) = start(100, 50, &Journal::default());
    finish(&pipeline, 60);
    pipeline.shutdown(PATIENCE).unwrap();
    assert_eq!(exporter.spans().len(), 60);
    assert_eq!(Arc::strong_count(&pipeline.shared), 1, "the thread is gone");
    finish(&pipeline, 1);
    assert_eq!(counts(&pipeline), (60, 1));
    pipeline.shutdown(PATIENCE).unwrap();
}

#[test]
fn a_stop_with_a_hanging_exporter_ends_at_its_deadline_and_reports_the_loss() {
    for order in [Order::Hang, Order::Block] {
        let (pipeline, exporter) = start(100, 2, &Journal::default());
        exporter.order(order);
        finish(&pipeline, 5);
        exporter.wait_for_calls(1);
        let began = Instant::now();
        let error = pipeline.shutdown(Duration::from_millis(100)).unwrap_err();
        assert!(began.elapsed() < PATIENCE / 2, "{order:?}: {:?}", began.elapsed());
        assert_eq!(error.kind(), ErrorKind::TIMEOUT, "{order:?}");
        assert!(
            error.message().starts_with("spans lost: 5, export was not done in 100ms"),
            "{order:?}: {error}"
        );
        assert_eq!((counts(&pipeline), pipeline.queued()), ((0, 5), 0), "{order:?}");
        exporter.order(Order::Take);
    }
}

#[test]
fn a_stop_with_a_failing_exporter_reports_the_loss_with_its_reason() {
    let (pipeline, exporter) = start(100, 2, &Journal::default());
    exporter.order(Order::Fail);
    finish(&pipeline, 3);
    exporter.wait_for_calls(1);
    let waiting = pipeline.queued();
    let error = pipeline.shutdown(PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OTHER);
    assert!(error.message().ends_with("(told to fail)"), "{error}");
    assert!(waiting >= 1 && counts(&pipeline) == (0, 3));
}
