//! The pipeline with an exporter that does what a test tells it.

use std::{sync::Arc, time::Duration};

use opentelemetry::InstrumentationScope;
use plugin_api::{Context, ErrorKind, Level, SpanContext};

use super::*;
use crate::{
    config::Config,
    record::Kind,
    semconv,
    testing::{Journal, Obedient, Order, PATIENCE, attribute, config, pipeline, sdk_span},
};

/// A delay that no test lives to see: what happens, happens for another reason.
const NEVER: Duration = Duration::from_secs(3600);

fn record() -> Box<Record> {
    let context = Context::new(SpanContext::new([1; 16], [2; 8], 1));
    Record::begin(Kind::Server, &context, None, "GET", 1)
}

/// A pipeline for queues and batches of this size.
fn start(queue: usize, batch: usize, journal: &Journal) -> (Arc<Pipeline>, Obedient) {
    pipeline(&unhurried(queue, batch), journal)
}

fn unhurried(queue: usize, batch: usize) -> Config {
    with(config("always_on"), |traces| {
        traces.max_queue_size = queue;
        traces.max_export_batch_size = batch;
        traces.schedule_delay = NEVER;
        traces.timeout = NEVER;
    })
}

fn with(mut config: Config, change: impl FnOnce(&mut Destination)) -> Config {
    change(&mut config.traces);
    config
}

fn finish(pipeline: &Pipeline, count: usize) {
    for _ in 0..count {
        pipeline.finish(&record());
    }
}

fn counts(pipeline: &Pipeline) -> (u64, u64) {
    let counts = pipeline.counts();
    (counts.exported, counts.dropped)
}

fn queued(pipeline: &Pipeline) -> u64 {
    pipeline.counts().queued
}

#[test]
fn a_full_batch_is_exported_at_once_and_the_rest_waits() {
    let (pipeline, exporter) = start(100, 3, &Journal::default());
    finish(&pipeline, 3);
    exporter.wait_for_calls(1);
    finish(&pipeline, 2);
    pipeline.flush(PATIENCE).unwrap();
    assert_eq!(exporter.batch_sizes(), [3, 2]);
    assert_eq!((counts(&pipeline), queued(&pipeline)), ((5, 0), 0));
}

#[test]
fn a_span_is_exported_when_its_delay_has_passed() {
    let soon = Duration::from_millis(1);
    let config = with(config("always_on"), |traces| traces.schedule_delay = soon);
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
    assert_eq!(counts(&pipeline), (0, 5));
    assert_eq!(queued(&pipeline), 4, "two with the exporter, two in the queue");
    exporter.order(Order::Take);
    pipeline.flush(PATIENCE).unwrap();
    assert_eq!(counts(&pipeline), (4, 5));
    assert_eq!(journal.lines().len(), 1, "{:?}", journal.lines());
    assert!(
        journal.text().contains("the queue is full (at most 4 spans and "),
        "{}",
        journal.text()
    );
}

#[test]
fn a_queue_is_full_when_its_bytes_are_used_up() {
    let journal = Journal::default();
    let length = otlp::field_len(encode::content_len(&record()));
    let config = with(unhurried(100, 50), |traces| traces.max_queue_bytes = 5 * length);
    let (pipeline, exporter) = pipeline(&config, &journal);
    finish(&pipeline, 7);
    assert_eq!((counts(&pipeline), queued(&pipeline)), ((0, 2), 5));
    assert!(journal.text().contains(&format!("and {} bytes", 5 * length)), "{}", journal.text());
    pipeline.flush(PATIENCE).unwrap();
    finish(&pipeline, 5);
    pipeline.flush(PATIENCE).unwrap();
    assert_eq!((counts(&pipeline), queued(&pipeline)), ((10, 2), 0));
    assert_eq!(exporter.spans().len(), 10);
}

#[test]
fn several_exports_are_on_their_way_at_once() {
    let (pipeline, exporter) = start(100, 2, &Journal::default());
    exporter.order(Order::Hang);
    finish(&pipeline, 8);
    exporter.wait_for_calls(4);
    assert_eq!(queued(&pipeline), 8);
}

#[test]
fn spans_of_many_threads_arrive_each_once_even_when_the_threads_are_gone() {
    let (pipeline, exporter) = start(100_000, 64, &Journal::default());
    thread::scope(|scope| {
        for thread in 0..8 {
            let pipeline = &pipeline;
            scope.spawn(move || {
                for number in 0..500 {
                    let mut record = record();
                    record.number("nth", thread * 500 + number);
                    pipeline.finish(&record);
                }
            });
        }
    });
    pipeline.flush(PATIENCE).unwrap();
    let mut seen: Vec<String> =
        exporter.spans().iter().map(|span| attribute(span, "nth")).collect();
    seen.sort_by_key(|nth| nth.parse::<u32>().unwrap());
    let wanted: Vec<String> = (0..4000).map(|nth| nth.to_string()).collect();
    assert_eq!(seen, wanted);
    assert!(exporter.batch_sizes().iter().all(|size| *size <= 64));
    assert_eq!((counts(&pipeline), queued(&pipeline)), ((4000, 0), 0));
}

#[test]
fn made_is_exported_and_dropped_and_pending_whatever_the_exporter_does() {
    let (pipeline, exporter) = start(200, 16, &Journal::default());
    let spans = 5000;
    let made = |pipeline: &Pipeline| {
        let Counts { exported, dropped, queued, .. } = pipeline.counts();
        exported + dropped + queued
    };
    thread::scope(|scope| {
        let producers: Vec<_> = (0..2).map(|_| scope.spawn(|| finish(&pipeline, spans))).collect();
        let mut orders =
            [Order::Take, Order::Fail, Order::Take, Order::TakeLess].into_iter().cycle();
        let mut last = 0;
        while !producers.iter().all(|producer| producer.is_finished()) {
            exporter.order(orders.next().unwrap());
            let now = made(&pipeline);
            assert!(last <= now, "{now} after {last}");
            assert!(queued(&pipeline) <= 200);
            last = now;
        }
    });
    assert_eq!(made(&pipeline), 2 * spans as u64);
    _ = pipeline.flush(PATIENCE);
    assert_eq!((made(&pipeline), queued(&pipeline)), (2 * spans as u64, 0));
}

#[test]
fn two_pipelines_of_one_thread_keep_their_spans_apart() {
    let (first, first_exporter) = start(100, 50, &Journal::default());
    let (second, second_exporter) = start(100, 50, &Journal::default());
    finish(&first, 1);
    finish(&second, 2);
    first.flush(PATIENCE).unwrap();
    second.flush(PATIENCE).unwrap();
    assert_eq!((first_exporter.batch_sizes(), second_exporter.batch_sizes()), (vec![1], vec![2]));
}

#[test]
fn spans_of_other_scopes_are_framed_as_such() {
    let (pipeline, exporter) = start(100, 50, &Journal::default());
    finish(&pipeline, 1);
    for name in ["a", "a", "b"] {
        let mut span = sdk_span();
        let scope = InstrumentationScope::builder(name).with_version("7");
        span.instrumentation_scope = scope.with_schema_url("https://there/1").build();
        pipeline.finish_span(&span);
    }
    pipeline.flush(PATIENCE).unwrap();
    let scopes = exporter.scopes();
    let mut told: Vec<_> = scopes
        .iter()
        .map(|one| {
            let scope = one.scope.as_ref().unwrap();
            (&*scope.name, &*scope.version, &*one.schema_url, one.spans.len())
        })
        .collect();
    told.sort_unstable();
    let own = (semconv::SCOPE, env!("CARGO_PKG_VERSION"), semconv::SCHEMA_URL, 1);
    let there = "https://there/1";
    assert_eq!(told, [("a", "7", there, 2), ("b", "7", there, 1), own]);
    assert_eq!(exporter.batch_sizes(), [4]);
}

#[test]
fn a_failure_that_may_pass_is_tried_again_until_it_does() {
    let journal = Journal::default();
    let (pipeline, exporter) = start(100, 1, &journal);
    exporter.order(Order::FailForNow);
    finish(&pipeline, 1);
    exporter.wait_for_calls(2);
    let export = pipeline.export();
    assert!(!export.is_failing, "nothing is lost yet");
    assert_eq!(export.last_error.as_deref(), Some("told to fail for now"));
    exporter.order(Order::Take);
    pipeline.flush(PATIENCE).unwrap();
    assert_eq!(counts(&pipeline), (1, 0));
    assert!(journal.lines().is_empty(), "{:?}", journal.lines());
}

#[test]
fn a_collector_that_wants_to_be_left_alone_for_ever_loses_the_spans() {
    let config = with(unhurried(100, 50), |traces| traces.timeout = PATIENCE);
    let (pipeline, exporter) = pipeline(&config, &Journal::default());
    exporter.order(Order::FailForEver);
    finish(&pipeline, 1);
    let error = pipeline.flush(PATIENCE).unwrap_err();
    assert_eq!(error.message(), "spans lost: 1 (told to wait)");
    assert_eq!((counts(&pipeline), queued(&pipeline)), ((0, 1), 0));
}

#[test]
fn a_failure_that_does_not_pass_in_time_loses_the_spans() {
    let config = with(unhurried(100, 50), |traces| traces.timeout = Duration::from_millis(600));
    let (pipeline, exporter) = pipeline(&config, &Journal::default());
    exporter.order(Order::FailForNow);
    finish(&pipeline, 1);
    let error = pipeline.flush(PATIENCE).unwrap_err();
    assert_eq!(error.message(), "spans lost: 1 (told to fail for now)");
    assert!(exporter.calls() > 1);
}

#[test]
fn a_stop_does_not_wait_for_a_failure_to_pass() {
    let (pipeline, exporter) = start(100, 1, &Journal::default());
    exporter.order(Order::FailForNow);
    finish(&pipeline, 1);
    exporter.wait_for_calls(1);
    let began = Instant::now();
    let error = pipeline.shutdown(PATIENCE).unwrap_err();
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert_eq!(error.message(), "spans lost: 1 (told to fail for now)");
    assert_eq!(exporter.calls(), 2, "one more attempt");
}

#[test]
fn spans_that_the_collector_refuses_one_by_one_are_dropped_ones() {
    let journal = Journal::default();
    let (pipeline, exporter) = start(100, 50, &journal);
    exporter.order(Order::TakeLess);
    for _ in 0..2 {
        finish(&pipeline, 3);
        let error = pipeline.flush(PATIENCE).unwrap_err();
        assert_eq!(error.message(), "spans lost: 1 (one is odd)");
    }
    assert_eq!(counts(&pipeline), (4, 2));
    assert!(!pipeline.export().is_failing);
    assert_eq!(journal.lines().len(), 1, "{:?}", journal.lines());
    assert!(
        journal.text().contains("refuses spans, 1 of 3 in one export: one is odd"),
        "{}",
        journal.text()
    );
}

#[test]
fn an_export_that_ends_after_the_stop_is_not_counted_twice() {
    let (pipeline, exporter) = start(100, 2, &Journal::default());
    exporter.order(Order::Block);
    finish(&pipeline, 2);
    exporter.wait_for_calls(1);
    pipeline.shutdown(Duration::from_millis(20)).unwrap_err();
    exporter.order(Order::Take);
    let deadline = Instant::now() + PATIENCE;
    while Arc::strong_count(&pipeline.shared) > 1 {
        assert!(Instant::now() < deadline, "the thread goes on");
        thread::yield_now();
    }
    assert_eq!((counts(&pipeline), queued(&pipeline)), ((0, 2), 0));
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
fn an_error_from_before_export_worked_again_explains_nothing() {
    let (pipeline, exporter) = start(100, 50, &Journal::default());
    let flush = |order, timeout| {
        exporter.order(order);
        finish(&pipeline, 1);
        pipeline.flush(timeout).map_err(|error| error.message().to_owned())
    };
    assert_eq!(flush(Order::Fail, PATIENCE).unwrap_err(), "spans lost: 1 (told to fail)");
    flush(Order::Take, PATIENCE).unwrap();
    let waits = flush(Order::Block, Duration::from_millis(20)).unwrap_err();
    assert_eq!(waits, "spans still waiting after 20ms: 1");
    assert_eq!(pipeline.export().last_error.as_deref(), Some("told to fail"));
    exporter.order(Order::Take);
    pipeline.flush(PATIENCE).unwrap();
}

#[test]
fn export_is_seen_to_work_again_though_nothing_follows_what_was_lost() {
    let journal = Journal::default();
    let soon = Duration::from_millis(1);
    let config = with(config("always_on"), |traces| traces.schedule_delay = soon);
    let (pipeline, exporter) = pipeline(&config, &journal);
    let becomes = |is_failing| {
        let deadline = Instant::now() + PATIENCE;
        while pipeline.export().is_failing != is_failing {
            assert!(Instant::now() < deadline, "{:?}", pipeline.export());
            thread::yield_now();
        }
    };
    exporter.order(Order::Fail);
    finish(&pipeline, 1);
    becomes(true);
    exporter.order(Order::Take);
    becomes(false);
    assert_eq!(counts(&pipeline), (0, 1));
    assert!(journal.text().contains("works again"), "{}", journal.text());
}

#[test]
fn a_check_sends_no_span_and_says_what_the_collector_said() {
    let (pipeline, exporter) = start(100, 50, &Journal::default());
    pipeline.check(PATIENCE).unwrap();
    exporter.order(Order::Fail);
    let error = pipeline.check(PATIENCE).unwrap_err();
    let wanted =
        "the collector cannot be reached with spans at http://localhost:4317: told to fail";
    assert_eq!(error.message(), wanted);
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
    let config = with(config("always_on"), |traces| traces.timeout = Duration::from_millis(5));
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
        assert_eq!((counts(&pipeline), queued(&pipeline)), ((0, 5), 0), "{order:?}");
        exporter.order(Order::Take);
    }
}

#[test]
fn a_stop_with_a_failing_exporter_reports_the_loss_with_its_reason() {
    let (pipeline, exporter) = start(100, 2, &Journal::default());
    exporter.order(Order::Fail);
    finish(&pipeline, 3);
    exporter.wait_for_calls(1);
    let waiting = queued(&pipeline);
    let error = pipeline.shutdown(PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OTHER);
    assert!(error.message().ends_with("(told to fail)"), "{error}");
    assert!(waiting >= 1 && counts(&pipeline) == (0, 3));
}
