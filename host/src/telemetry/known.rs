//! A span that the plugin knows.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use plugin_api::{
    Context,
    abi::{AbiBegun, SpanObject},
};
use tracing::Metadata;

/// How many a thread keeps for the next ones: it hardly ever has more open at once.
const MOST_KEPT: usize = 16;

/// A span that the plugin knows. Shared, because the plugin is not called while the spans or the
/// current context are locked: it may log.
#[derive(Clone)]
pub(crate) struct Known(Arc<Followed>);

struct Followed {
    metadata: &'static Metadata<'static>,
    /// The context inside of it.
    context: Context,
    /// Whether there is a recorder, without a look into the lock.
    is_recorded: bool,
    /// What records it; `None` where nothing does.
    recorder: Mutex<Option<SpanObject>>,
    /// Kept until this one has ended: a span does not end before those inside of it that are recorded.
    around: Option<Known>,
}

thread_local! {
    /// Spans that are over, whose memory the next ones on this thread take.
    static KEPT: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

impl Followed {
    fn recorder(&mut self) -> &mut Option<SpanObject> {
        // The plugin's panics stay on its side, so none has poisoned it.
        self.recorder.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// A span that the plugin has begun, inside of another one that it knows or of none.
    pub(super) fn new(
        metadata: &'static Metadata<'static>,
        begun: AbiBegun,
        around: Option<Self>,
    ) -> Self {
        let AbiBegun { context, span } = begun;
        let (is_recorded, recorder) = (span.is_some(), span.into_option());
        let around = around.filter(|around| is_recorded && around.is_recorded());
        // A thread that ends has none any more.
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
        if let Some(mut kept) = kept
            && let Some(followed) = Arc::get_mut(&mut kept.0)
        {
            (followed.metadata, followed.is_recorded) = (metadata, is_recorded);
            (followed.context, followed.around) = (context, around);
            *followed.recorder() = recorder;
            return kept;
        }
        let recorder = Mutex::new(recorder);
        Self(Arc::new(Followed { metadata, context, is_recorded, recorder, around }))
    }

    /// The last handle of it is gone: it is over, unless something is inside of it still.
    pub(super) fn close(mut self) {
        let Some(followed) = Arc::get_mut(&mut self.0) else { return };
        (*followed.recorder(), followed.around) = (None, None);
        followed.context = Context::default();
        _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MOST_KEPT {
                kept.push(self);
            }
        });
    }

    pub(super) fn metadata(&self) -> &'static Metadata<'static> {
        self.0.metadata
    }

    /// The context inside of it.
    pub(super) fn context(&self) -> &Context {
        &self.0.context
    }

    /// Whether there is anything to tell what happens in it.
    pub(super) fn is_recorded(&self) -> bool {
        self.0.is_recorded
    }

    /// Tells what records it something; one thread at a time does.
    pub(super) fn tell(&self, tell: impl FnOnce(&mut SpanObject)) {
        // The plugin's panics stay on its side, so none has poisoned it.
        let mut recorder = self.0.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorder) = &mut *recorder {
            tell(recorder);
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Known").field(&self.0.metadata.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::{
        Level,
        adapter::telemetry_object,
        telemetry::{Callsite, Fields, SpanHead},
    };

    use super::*;
    use crate::{
        metrics::testing::allocations,
        telemetry::{journal::Journal, tests::metadata},
    };

    /// What the plugin answers of a span of this name: `unrecorded` is not recorded.
    fn begun(journal: &Journal, name: &'static str) -> AbiBegun {
        let callsite = Callsite::new(Level::INFO, "tests", name);
        let head = SpanHead::new(&callsite, Fields::default());
        let parent = Context::default().with_state("a=1", "b=2");
        telemetry_object(journal.clone()).on_span(&head, &parent)
    }

    fn begin(journal: &Journal, name: &'static str, around: Option<&Known>) -> Known {
        Known::new(metadata(), begun(journal, name), around.cloned())
    }

    #[test]
    fn a_span_that_is_over_gives_its_memory_on_and_nothing_else() {
        let journal = Journal::default();
        let outer = begin(&journal, "outer", None);
        let first = begin(&journal, "first", Some(&outer));
        let context = first.context().clone();
        first.close();
        assert_eq!((journal.ended(), Arc::strong_count(&outer.0)), (vec!["first"], 1));
        KEPT.with_borrow(|kept| {
            let [Known(kept)] = &**kept else { panic!("{kept:?}") };
            assert!(kept.around.is_none() && kept.recorder.lock().unwrap().is_none());
            assert_eq!(kept.context.tracestate(), "");
        });
        let (metadata, begun) = (metadata(), begun(&journal, "unrecorded"));
        let mut second = None;
        let taken = allocations(|| second = Some(Known::new(metadata, begun, None)));
        let second = second.unwrap();
        assert_eq!(taken, 0);
        assert_eq!(second.context().tracestate(), "a=1");
        assert_ne!(second.context().span(), context.span());
        assert!(!second.is_recorded());
        second.tell(|_| panic!("nothing records it"));
        second.close();
        let third = begin(&journal, "third", Some(&outer));
        assert_eq!(Arc::strong_count(&outer.0), 2);
        let mut told = false;
        third.tell(|_| told = true);
        assert!(third.is_recorded() && told);
    }

    #[test]
    fn a_span_that_another_one_is_inside_of_is_not_over() {
        let journal = Journal::default();
        let outer = begin(&journal, "outer", None);
        let inner = begin(&journal, "inner", Some(&outer));
        outer.close();
        assert!(KEPT.with_borrow(Vec::is_empty));
        assert_eq!(journal.ended(), [""; 0]);
        inner.close();
        assert_eq!(journal.ended(), ["inner", "outer"]);
    }

    #[test]
    fn a_span_that_is_not_recorded_keeps_no_other_and_is_kept_by_none() {
        let journal = Journal::default();
        let outer = begin(&journal, "outer", None);
        let middle = begin(&journal, "unrecorded", Some(&outer));
        let inner = begin(&journal, "inner", Some(&middle));
        assert_eq!([&outer, &middle, &inner].map(|span| Arc::strong_count(&span.0)), [1; 3]);
        outer.close();
        assert_eq!(journal.ended(), ["outer"]);
    }

    #[test]
    fn a_thread_keeps_the_memory_of_a_few_spans() {
        let journal = Journal::default();
        let all: Vec<_> = (0..2 * MOST_KEPT).map(|_| begin(&journal, "one", None)).collect();
        all.into_iter().for_each(Known::close);
        assert_eq!(KEPT.with_borrow(Vec::len), MOST_KEPT);
    }
}
