//! How a test is run, and how it says that it was not.
//!
//! The tests are listed with `libtest-mimic`, whose output and arguments are those of `cargo test`,
//! because the built-in harness cannot count a test as skipped once it runs.

use std::fmt;

use libtest_mimic::{Completion, Trial};

/// Why a test could not be run here.
#[derive(Clone, Debug)]
pub struct Skipped(String);

impl Skipped {
    /// A tool is not installed.
    ///
    /// # Panics
    /// When `REQUIRE_TOOLS=1`: where the tools are installed on purpose, a skip is a failure.
    #[must_use]
    pub fn new(reason: &str) -> Self {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none_or(|v| v != "1"), "{reason}");
        Self(reason.to_owned())
    }

    /// Something is not given that a test must not ask for: another compiler, root.
    #[must_use]
    pub fn impossible(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

/// What a test may return.
pub trait Verdict {
    /// The same in the words of the test runner.
    fn completion(self) -> Completion;
}

impl Verdict for () {
    fn completion(self) -> Completion {
        Completion::Completed
    }
}

impl Verdict for Result<(), Skipped> {
    fn completion(self) -> Completion {
        match self {
            Ok(()) => Completion::Completed,
            Err(skipped) => Completion::ignored_with(skipped),
        }
    }
}

/// The test `name`, on a runtime of its own.
pub fn trial<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output: Verdict> + 'static,
{
    Trial::ignorable_test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        Ok(runtime.block_on(test()).completion())
    })
}
