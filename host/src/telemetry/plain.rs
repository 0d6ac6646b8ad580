//! The lines of the log beside those of `tracing-subscriber` as it comes, with the same settings.

use std::{error::Error, fmt, sync::Mutex};

use plugin_api::adapter::telemetry_object;
use tracing::{
    Instrument as _, Level, debug, debug_span, error, field, info, info_span, trace, warn,
    warn_span,
};
use tracing_subscriber::{Layer as _, Registry, layer::SubscriberExt as _};

use super::{
    bridge::Bridge,
    journal::Journal,
    log::{Captured, Sink},
    tests::new_bridge,
};
use crate::config::{LogFilter, LogFormat};

/// A filter that names spans does not know a callsite that another thread registers just now.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What is written of `program` where the log is not the host's.
fn plain(format: LogFormat, level: &LogFilter, program: impl FnOnce()) -> String {
    let written = Sink::default();
    let layer = tracing_subscriber::fmt::layer().with_writer(written.writer()).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let subscriber = Registry::default().with(layer.with_filter(level.build()));
    tracing::subscriber::with_default(subscriber, program);
    written.take()
}

fn of_the_host(
    bridge: &'static Bridge,
    format: LogFormat,
    level: &LogFilter,
    program: impl FnOnce(),
) -> String {
    let captured = Captured::beside(bridge, format, level);
    program();
    captured.take()
}

/// The lines without their times.
fn timeless(format: LogFormat, lines: &str) -> Vec<String> {
    let rest = |line: &str| {
        let start = match format {
            LogFormat::Text => "",
            LogFormat::Json => r#"{"timestamp":""#,
        };
        let time = start.len().."2026-01-01T00:00:00.000000Z".len() + start.len();
        match line.get(time.clone()) {
            Some(shown) if shown.ends_with('Z') => {
                [&line[..time.start], &line[time.end..]].concat()
            }
            // Of a message of several lines the second has none.
            _ => line.to_owned(),
        }
    };
    lines.split_inclusive('\n').map(rest).collect()
}

#[derive(Debug)]
struct Refused(fmt::Error);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused: \"nobody\"")
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn events() {
    trace!("too slight");
    debug!(n = 1, "too slight");
    info!("a {} of {{braces}}, \"quotes\" and ü", "line");
    warn!(target: "another::target", is = true, "of a target");
    info!(minus = -7_i64, plus = u64::MAX, wide = i128::MIN, wider = u128::MAX, "numbers");
    info!(half = 0.5, nan = f64::NAN, inf = f64::INFINITY, "fractions");
    info!(text = "x\ty", empty = "", shown = %"sh own", debugged = ?Some("d\"bg"), "texts");
    info!(none = field::Empty, some = Some(3), bytes = ?b"\x00\xff", "others");
    info!(only = "a field");
    info!(name: "named", r#type = "raw", message = "as a field");
    info!(dotted.key = 1, "quoted key" = 2, "keys");
    let refused = Refused(fmt::Error);
    error!(error = &refused as &(dyn Error + 'static), "failed");
    error!(error = %refused, cause = ?refused.source());
    tracing::event!(Level::WARN, { a = 1, b = "two" }, "two\nlines");
}

fn spans() {
    let outer = info_span!("outer", n = 1, text = "x y", shown = %7, late = field::Empty);
    outer.in_scope(|| {
        info!("in one");
        outer.record("late", "there");
        let inner = info_span!("inner", error = &Refused(fmt::Error) as &(dyn Error + 'static));
        inner.follows_from(&outer);
        let entered = inner.enter();
        info!(n = 2, "in two");
        debug_span!("slight", n = 3).in_scope(|| {
            warn!("in one that is not shown");
            info_span!("below").in_scope(|| info!("and one that is"));
        });
        info!(parent: &outer, "of another");
        info!(parent: None, "of none");
        info_span!(parent: None, "alone").in_scope(|| info!("alone"));
        warn_span!(parent: &inner, "grave", n = 5).in_scope(|| warn!("in a grave one"));
        drop(entered);
        info_span!(parent: &inner, "child").in_scope(events);
        tracing::Span::current().record("late", "again");
        info!("in one again");
    });
    outer.in_scope(|| info!("entered again"));
    info!("outside");
}

async fn task() {
    info!("before");
    tokio::task::yield_now().await;
    async { info!("inside") }.instrument(info_span!("of a future", n = 1)).await;
    info!("after");
}

fn program() {
    events();
    spans();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { tokio::join!(task().instrument(info_span!("task")), task()) });
}

const FORMATS: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];
/// The last two name spans.
const LEVELS: [&str; 6] =
    ["info", "warn", "off", "warn,another=info", "warn,[inner]=debug", "off,[outer{n=1}]=info"];

fn same(wanted: &[String], found: &[String]) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len());
}

/// The line without the ids that the host puts behind it.
fn without_ids(format: LogFormat, line: &str) -> String {
    let (start, end) = match format {
        LogFormat::Text => (" trace_id=", "\n"),
        LogFormat::Json => (r#","trace_id":"#, "}\n"),
    };
    line.split_once(start).map_or_else(|| line.to_owned(), |(line, _)| format!("{line}{end}"))
}

#[test]
fn without_a_plugin_the_log_has_the_lines_of_tracing_subscriber_byte_for_byte() {
    let _one = ONE_AT_A_TIME.lock();
    for format in FORMATS {
        for level in LEVELS {
            let level = LogFilter::try_from(level.to_owned()).unwrap();
            let wanted = timeless(format, &plain(format, &level, program));
            same(&wanted, &timeless(format, &of_the_host(new_bridge(), format, &level, program)));
        }
    }
    let lines = plain(LogFormat::Text, &LogFilter::default(), program);
    assert!(lines.lines().count() > 35, "{lines:#?}");
}

#[test]
fn with_a_plugin_the_lines_are_the_same_but_for_their_ids() {
    let _one = ONE_AT_A_TIME.lock();
    for format in FORMATS {
        for level in LEVELS {
            let (bridge, journal) = (new_bridge(), Journal::default());
            bridge.splice(telemetry_object(journal.clone()));
            let level = LogFilter::try_from(level.to_owned()).unwrap();
            let wanted = timeless(format, &plain(format, &level, program));
            let found = timeless(format, &of_the_host(bridge, format, &level, program));
            let found: Vec<_> = found.iter().map(|line| without_ids(format, line)).collect();
            same(&wanted, &found);
            // The plugin has heard of all of them whatever the log takes.
            assert_eq!(journal.spans().len(), 9, "{:#?}", journal.spans());
            assert_eq!(journal.open(), 0);
        }
    }
}
