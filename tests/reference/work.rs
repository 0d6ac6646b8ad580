//! What is traced: a span for each thing that can be said of one.

use std::{error::Error, fmt};

use tracing::{Span, error, field::Empty, info, info_span, instrument, warn};

/// An error with a cause.
#[derive(Debug)]
struct NoGoods(fmt::Error);

impl fmt::Display for NoGoods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no goods")
    }
}

impl Error for NoGoods {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// All of it.
#[instrument]
pub(crate) fn work() {
    fields(-7, 7);
    info_span!("kind", otel.name = "a job", otel.kind = "producer").in_scope(|| {
        info_span!("below").in_scope(|| info!(left = 3, "looking"));
    });
    info_span!("well", otel.status_code = "ok");
    info_span!("broken", otel.status_code = "error");
    info_span!("broken and told", otel.status_code = "error", otel.status_description = "why");
    info_span!("unlucky").in_scope(|| error!("out of luck"));
    info_span!("warned").in_scope(|| warn!(often = true, "not yet"));
    info_span!("with error", error = &NoGoods(fmt::Error) as &(dyn Error + 'static));
    info_span!("told").in_scope(|| {
        error!(cause = &NoGoods(fmt::Error) as &(dyn Error + 'static), "failed");
    });
    // What it says is in its span.
    let _ = fails();
    let linked = info_span!("linked");
    linked.follows_from(Span::current());
    linked.in_scope(|| info_span!(parent: None, "alone"));
}

/// A field of each type, one of them late.
#[instrument(fields(flag = true, fraction = 0.5, text = "x", shown = ?Some(1), late = Empty, never = Empty))]
fn fields(signed: i64, unsigned: u64) {
    Span::current().record("late", "there");
}

#[instrument(err)]
fn fails() -> Result<(), NoGoods> {
    Err(NoGoods(fmt::Error))
}
