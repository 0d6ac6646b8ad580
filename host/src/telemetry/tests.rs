//! The bridge between `tracing` and a plugin that remembers what it is told.

use std::{cell::Cell, fmt};

use futures_util::StreamExt as _;
use plugin_api::{Context, SpanContext, adapter::telemetry_object};
use tracing::{
    Dispatch, Instrument as _, Metadata, Span, Subscriber, error_span, info_span,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Registry, filter::LevelFilter, layer::SubscriberExt as _};

use super::{
    bridge::{Bridge, PLUGIN_TARGET},
    context::{self, Current, FnOnceExt as _, FutureExt as _},
    journal::Journal,
    log::Sink,
    tap::Tap,
};
use crate::metrics::testing::allocations;

pub(super) fn new_bridge() -> &'static Bridge {
    Box::leak(Box::new(Bridge::new()))
}

/// That of a span.
pub(super) fn metadata() -> &'static Metadata<'static> {
    let span = || info_span!("one").metadata().unwrap();
    tracing::dispatcher::with_default(&Dispatch::new(Registry::default()), span)
}

fn subscriber(bridge: &'static Bridge, level: LevelFilter) -> impl Subscriber + Send + Sync {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
    Tap::new(Registry::default().with(level).with(lines), bridge)
}

/// A journal that is spliced into the log of this thread.
fn spliced() -> (Journal, &'static Bridge, DefaultGuard) {
    spliced_beside(LevelFilter::INFO)
}

/// The same, where lines of this level are written.
fn spliced_beside(level: LevelFilter) -> (Journal, &'static Bridge, DefaultGuard) {
    let journal = Journal::default();
    let (bridge, guard) = splice(&journal, level);
    (journal, bridge, guard)
}

fn splice(journal: &Journal, level: LevelFilter) -> (&'static Bridge, DefaultGuard) {
    let bridge = new_bridge();
    let guard = tracing::subscriber::set_default(subscriber(bridge, level));
    bridge.splice(telemetry_object(journal.clone()));
    (bridge, guard)
}

fn exchange(id: u8, flags: u32) -> Current {
    Current::new(Context::new(SpanContext::new([9; 16], [id; 8], flags)))
}

/// Levels of a log that knows the spans of these tests, and of one that does not.
const BOTH: [LevelFilter; 2] = [LevelFilter::INFO, LevelFilter::OFF];

/// Runs `future` as the handler of exchange 7, on several threads whose log is spliced.
fn run<F>(journal: &Journal, level: LevelFilter, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let bridge = new_bridge();
    let dispatch = Dispatch::new(subscriber(bridge, level));
    tracing::dispatcher::with_default(&dispatch, || {
        bridge.splice(telemetry_object(journal.clone()));
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .on_thread_start(move || {
            // For as long as the thread lives.
            std::mem::forget(tracing::dispatcher::set_default(&dispatch));
        })
        .build()
        .unwrap();
    let handler = context::enter(&mut exchange(7, 1), || future.with_current_context());
    runtime.block_on(runtime.spawn(handler)).unwrap();
    drop(runtime);
    assert_eq!(journal.open(), 0, "{:#?}", journal.lines());
}

fn tell_spans() {
    context::enter(&mut exchange(7, 1), || {
        info_span!("outer", n = 1_u64, text = "x").in_scope(|| {
            let inner = info_span!("inner", late = tracing::field::Empty);
            inner.record("late", true);
            inner.follows_from(tracing::Span::current());
            inner.in_scope(|| tracing::warn!(port = 5, "look"));
            info_span!(parent: None, "alone");
        });
        tracing::warn!("outside");
    });
}

#[test]
fn spans_are_told_below_the_enclosing_span_or_the_exchange() {
    for level in BOTH {
        let (journal, _, _guard) = spliced_beside(level);
        tell_spans();
        let wanted = [
            "span outer 100 below 7 n=U64(1) text=Text(\"x\")",
            "span inner 101 below 100",
            "inner has late=Bool(true)",
            "inner follows 100",
            "event of inner: look",
            "line in 101: look port=I64(5)",
            "span alone 102 below 0",
            "line in 7: outside",
        ];
        assert_eq!(journal.lines(), wanted);
        assert_eq!(journal.open(), 0);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no luck")]
struct NoLuck(#[source] std::fmt::Error);

#[test]
fn an_error_crosses_with_its_causes() {
    let (journal, _, _guard) = spliced();
    let (error, cause) = (NoLuck(std::fmt::Error), std::fmt::Error);
    tracing::error!(error = &error as &(dyn std::error::Error + 'static), "failed");
    assert_eq!(journal.lines(), [format!("line in 0: failed error=no luck/{cause}")]);
}

#[test]
fn of_two_messages_the_last_one_crosses() {
    let (journal, _, _guard) = spliced();
    tracing::error!(message = "said otherwise", goods = "apples", "no {}", "luck");
    assert_eq!(journal.lines(), [r#"line in 0: said otherwise goods=Text("apples")"#]);
}

#[test]
fn what_the_plugin_does_not_want_never_crosses() {
    let (journal, bridge, _guard) = spliced();
    tracing::info!("below the level, and in no span");
    tracing::debug!("far below");
    tracing::debug_span!("slight").in_scope(|| tracing::trace!("slighter"));
    tracing::error!(target: PLUGIN_TARGET, "the export fails");
    context::enter(&mut exchange(7, 0), || {
        info_span!("unsampled").in_scope(|| {
            assert_eq!(context::current().unwrap().span().span_id[0], 7);
        });
    });
    assert_eq!(journal.lines(), [""; 0]);
    bridge.close();
    tracing::error!("too late");
    info_span!("late");
    assert_eq!(journal.lines(), [""; 0]);
}

#[test]
fn spans_of_a_request_that_is_not_sampled_are_told_where_they_may_be_kept() {
    let journal = Journal::of_unsampled();
    let _spliced = splice(&journal, LevelFilter::INFO);
    context::enter(&mut exchange(7, 0), || info_span!("held").in_scope(|| info_span!("inner")));
    assert_eq!(journal.spans(), ["held 100 below 7", "inner 101 below 100"]);
}

/// A value that counts how often it is shown.
struct Costly<'a>(&'a Cell<u32>);

impl fmt::Display for Costly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.set(self.0.get() + 1);
        f.write_str("costly")
    }
}

#[test]
fn a_million_lines_below_the_level_are_not_shown_do_not_cross_and_allocate_nothing() {
    let (journal, _, _guard) = spliced_beside(LevelFilter::WARN);
    let shown = Cell::new(0);
    let lines = || {
        for n in 0..250_000 {
            tracing::info!(n, costly = %Costly(&shown), "below the level");
        }
    };
    let slight = || (0..250_000).for_each(|n| tracing::debug!(n, "far below"));
    // What a callsite needs once it has from then on.
    lines();
    slight();
    assert_eq!(allocations(lines), 0, "in no span");
    assert_eq!(allocations(slight), 0);
    context::enter(&mut exchange(7, 0), || {
        info_span!("unsampled").in_scope(|| assert_eq!(allocations(lines), 0));
    });
    assert_eq!(journal.lines(), [""; 0]);
    context::enter(&mut exchange(7, 1), || {
        info_span!("unrecorded").in_scope(|| assert_eq!(allocations(lines), 0));
    });
    assert_eq!(journal.lines(), ["span unrecorded 100 below 7"]);
    assert_eq!(shown.get(), 0);
    info_span!("recorded").in_scope(|| tracing::info!(costly = %Costly(&shown), "an event of it"));
    assert_eq!(shown.get(), 1);
    assert_eq!(journal.lines().len(), 3);
}

#[test]
fn a_line_that_only_the_plugin_wants_takes_none_of_the_log_with_it() {
    let (journal, bridge) = (Journal::default(), new_bridge());
    let written = Sink::default();
    let lines = tracing_subscriber::fmt::layer().with_writer(written.writer());
    let lines = Registry::default().with(LevelFilter::ERROR).with(lines);
    let _guard = tracing::subscriber::set_default(Tap::new(lines, bridge));
    bridge.splice(telemetry_object(journal.clone()));
    for _ in 0..2 {
        tracing::warn!("slight");
        assert!(tracing::enabled!(tracing::Level::WARN));
        tracing::error!("grave");
    }
    let written = written.take();
    assert_eq!((written.matches("grave").count(), written.matches("slight").count()), (2, 0));
    let told = ["line in 0: slight", "line in 0: grave"];
    assert_eq!(journal.lines(), [told, told].concat());
}

#[test]
fn a_span_that_was_open_before_stays_unknown() {
    let (journal, bridge) = (Journal::default(), new_bridge());
    let _guard = tracing::subscriber::set_default(subscriber(bridge, LevelFilter::INFO));
    let early = info_span!("early");
    let _entered = early.enter();
    bridge.splice(telemetry_object(journal.clone()));
    early.record("x", 1);
    tracing::warn!("look");
    info_span!("later");
    early.in_scope(|| tracing::warn!("again"));
    info_span!(parent: &early, "below");
    let wanted = ["line in 0: look", "span later 100 below 0"];
    assert_eq!(journal.lines(), [wanted, ["line in 0: again", "span below 101 below 0"]].concat());
}

#[test]
fn spans_find_their_parents_in_tasks_and_on_threads_that_block() {
    let handler = || async {
        let spawned = async { drop(info_span!("spawned")) }.with_current_context();
        let blocking = (|| drop(info_span!("blocking"))).with_current_context();
        tokio::spawn(spawned).await.unwrap();
        tokio::task::spawn_blocking(blocking).await.unwrap();
        tokio::spawn(async { drop(info_span!("stray")) }).await.unwrap();
    };
    for level in BOTH {
        let journal = Journal::default();
        run(&journal, level, handler());
        let spans = journal.spans();
        assert_eq!(spans, ["spawned 100 below 7", "blocking 101 below 7", "stray 102 below 0"]);
    }
}

async fn work(branch: &'static str, rounds: u32) {
    for _ in 0..rounds {
        tokio::task::yield_now().await;
        tracing::warn!("{branch}");
    }
}

#[test]
fn branches_of_a_join_do_not_take_each_other_s_span() {
    for level in BOTH {
        let journal = Journal::default();
        run(&journal, level, async {
            async {
                tokio::join!(
                    work("left", 20).instrument(info_span!("left")),
                    work("right", 30).instrument(info_span!("right")),
                );
            }
            .instrument(info_span!("both"))
            .await;
            assert_eq!(context::current().unwrap().span().span_id[0], 7);
        });
        assert_eq!(
            journal.spans(),
            ["both 100 below 7", "left 101 below 100", "right 102 below 100"]
        );
        let lines = journal.lines();
        let count = |line: &str| lines.iter().filter(|one| *one == line).count();
        assert_eq!(
            (count("line in 101: left"), count("line in 102: right")),
            (20, 30),
            "{lines:#?}"
        );
        assert_eq!((count("event of left: left"), count("event of right: right")), (20, 30));
    }
}

#[test]
fn a_stream_that_is_polled_on_several_threads_keeps_its_span() {
    for level in BOTH {
        let journal = Journal::default();
        run(&journal, level, async {
            let span = info_span!("stream");
            let items = futures_util::stream::unfold(0, |n| async move {
                tokio::task::yield_now().await;
                tracing::warn!("item");
                (n < 50).then_some(((), n + 1))
            });
            let mut items = Box::pin(items);
            // Each item is asked for by another task, so by any thread.
            loop {
                let span = span.clone();
                let next = async move { (items.next().await, items) }.instrument(span);
                let (item, rest) = tokio::spawn(next.with_current_context()).await.unwrap();
                items = rest;
                if item.is_none() {
                    break;
                }
            }
        });
        assert_eq!(journal.spans(), ["stream 100 below 7"]);
        let lines = journal.lines();
        let inside = lines.iter().filter(|line| *line == "line in 100: item").count();
        assert_eq!(inside, 51, "{lines:#?}");
    }
}

#[test]
fn a_span_ends_after_those_inside_of_it_and_with_the_last_of_its_handles() {
    for level in BOTH {
        let (journal, _, _guard) = spliced_beside(level);
        let outer = info_span!("outer");
        let inner = outer.in_scope(|| info_span!("inner"));
        let below = info_span!(parent: &inner, "below");
        drop(outer);
        drop(inner.clone());
        drop(inner);
        assert_eq!(journal.open(), 3);
        drop(below.clone());
        let last = below.clone();
        drop(below);
        assert_eq!(journal.open(), 3);
        drop(last);
        assert_eq!(journal.ended(), ["below", "inner", "outer"]);
    }
}

#[test]
fn a_span_may_outlive_its_request() {
    for level in BOTH {
        let (journal, _, _guard) = spliced_beside(level);
        let span = context::enter(&mut exchange(7, 1), || info_span!("long"));
        let thread = std::thread::spawn(move || {
            std::thread::yield_now();
            drop(span);
        });
        assert!(context::current().is_none());
        thread.join().unwrap();
        assert_eq!(journal.spans(), ["long 100 below 7"]);
        assert_eq!(journal.open(), 0);
    }
}

#[test]
fn the_current_span_is_the_innermost_whether_the_log_knows_it_or_not() {
    let (journal, _, _guard) = spliced_beside(LevelFilter::ERROR);
    let name = || Span::current().metadata().map(|metadata| metadata.name());
    let (unlogged, logged) = (info_span!("unlogged"), error_span!("logged"));
    let (one, two) = (unlogged.enter(), logged.enter());
    assert_eq!(name(), Some("logged"));
    let late = info_span!("late", value = tracing::field::Empty).entered();
    assert_eq!(name(), Some("late"));
    Span::current().record("value", 7);
    drop(one);
    assert_eq!(name(), Some("late"));
    drop(late);
    assert_eq!(name(), Some("logged"));
    drop(two);
    assert_eq!(name(), None);
    let held = unlogged.in_scope(|| async { info_span!("later") }.in_current_span());
    drop(unlogged);
    assert_eq!(journal.open(), 2, "what runs in it holds it");
    drop((held, logged));
    assert_eq!(journal.open(), 0);
    let spans = ["unlogged 100 below 0", "logged 101 below 0", "late 102 below 101"];
    assert_eq!(journal.spans(), spans);
    assert!(journal.lines().contains(&"late has value=I64(7)".to_owned()));
}

#[test]
fn spans_that_nobody_knows_are_no_span_of_any_other() {
    let (journal, _, _guard) = spliced_beside(LevelFilter::OFF);
    info_span!("known").in_scope(|| {
        context::enter(&mut exchange(7, 0), || {
            let current = || Span::current().metadata().map(|metadata| metadata.name());
            info_span!("one").in_scope(|| assert_eq!(current(), Some("known")));
        });
    });
    context::enter(&mut exchange(7, 0), || {
        let (one, two) = (info_span!("one"), info_span!("two"));
        one.in_scope(|| assert!(Span::current().is_none()));
        two.record("nothing", 1);
        two.follows_from(&one);
        drop(one.clone());
        drop(one);
        info_span!(parent: &two, "three").in_scope(|| tracing::warn!("look"));
    });
    assert_eq!(journal.lines(), ["span known 100 below 0", "line in 7: look"]);
}
