//! Work that the drain deadline may cut, and where HTTP/2 does its own.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use plugin_api::Outcome;
use tokio_util::task::TaskTracker;

use crate::layers::cut;

/// Whether the deadline has passed; clones share it.
#[derive(Clone, Default)]
pub(super) struct Deadline(Arc<AtomicBool>);

impl Deadline {
    /// From now on whatever is dropped was cut by the stop.
    pub(super) fn pass(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_passed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// `work`, whose exchanges end with [`Outcome::STOPPED`] where it is dropped after the deadline.
    pub(super) fn over<F>(&self, work: F) -> Cuttable<F> {
        Cuttable { work: Some(work), deadline: self.clone() }
    }
}

pin_project! {
    /// See [`Deadline::over`].
    pub(super) struct Cuttable<F> {
        #[pin]
        work: Option<F>,
        deadline: Deadline,
    }

    impl<F> PinnedDrop for Cuttable<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.deadline.has_passed() {
                cut::with(Outcome::STOPPED, || this.work.set(None));
            }
        }
    }
}

impl<F: Future<Output = ()>> Future for Cuttable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Work that is woken after the deadline is not begun again; the drop says the rest.
        match this.work.as_pin_mut() {
            Some(work) if !this.deadline.has_passed() => work.poll(cx),
            _ => Poll::Ready(()),
        }
    }
}

/// The tasks that hyper spawns, one for each HTTP/2 stream: they outlive their connection by a
/// moment, in which they notice its end.
#[derive(Clone, Default)]
pub(super) struct Streams {
    tasks: TaskTracker,
    deadline: Deadline,
}

impl Streams {
    pub(super) const fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Waits until the last of them is over. The connections have to be gone by then.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.tasks.spawn(self.deadline.over(stream));
    }
}
