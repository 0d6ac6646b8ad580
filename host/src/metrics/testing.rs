//! Metrics as tests read them, and an allocator that counts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use plugin_api::metrics::{Attribute, AttributeValue, Point, Visit};

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub(crate) name: String,
    /// Attributes, value, and how many values a histogram has.
    pub(crate) points: Vec<(String, f64, u64)>,
}

/// Everything that is shown to the visitor.
pub(crate) fn shown(show: impl FnOnce(Visit<'_>)) -> Vec<Shown> {
    let mut all = Vec::new();
    show(&mut |metric| {
        let points = metric.points().iter().map(plain).collect();
        all.push(Shown { name: metric.name().to_owned(), points });
    });
    all
}

fn plain(point: &Point<'_>) -> (String, f64, u64) {
    let attributes: Vec<_> = point.attributes().iter().map(pair).collect();
    (attributes.join(" "), point.value(), point.counts().iter().sum())
}

fn pair(attribute: &Attribute<'_>) -> String {
    let key = attribute.key();
    match attribute.value() {
        AttributeValue::Text(text) => format!("{key}={text}"),
        AttributeValue::Number(number) => format!("{key}={number}"),
        AttributeValue::Flag(flag) => format!("{key}={flag}"),
    }
}

/// Counts what each thread allocates.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "what an allocator has to be")]
// SAFETY: everything is the system's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread allocates while it ends, too.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How often the calling thread allocates while it runs this.
pub(crate) fn allocations(body: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    body();
    ALLOCATIONS.get() - before
}
