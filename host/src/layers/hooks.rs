//! The host's side of a plugin's hooks: whether they are still called, and how long they took.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value as Json, json};

use super::SlowHooks;

/// The hooks of one stack.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    are_closed: AtomicBool,
    slow: SlowHooks,
}

impl Hooks {
    /// Runs a hook, unless the plugin is stopped.
    pub(crate) fn call<R>(&self, hook: impl FnOnce() -> R) -> Option<R> {
        (!self.are_closed.load(Ordering::Relaxed)).then(|| self.slow.time(hook))
    }
}

/// The hooks of each stack that has the plugin's layer.
#[derive(Clone)]
pub(crate) struct StackHooks {
    pub(crate) server: Option<Arc<Hooks>>,
    pub(crate) client: Option<Arc<Hooks>>,
}

impl StackHooks {
    /// Lets no further hook begin: the plugin is about to be stopped. What a handler has spawned
    /// may outlive its request, and calls services without being traced from now on.
    pub(crate) fn close(&self) {
        for hooks in [&self.server, &self.client].into_iter().flatten() {
            hooks.are_closed.store(true, Ordering::Relaxed);
        }
    }

    /// How often hooks took long.
    pub(crate) fn report(&self) -> Json {
        let slow = |hooks: &Option<Arc<Hooks>>| hooks.as_ref().map(|hooks| hooks.slow.report());
        json!({"server": slow(&self.server), "client": slow(&self.client)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hook_begins_after_the_last() {
        let hooks = Arc::<Hooks>::default();
        let both = StackHooks { server: Some(Arc::clone(&hooks)), client: None };
        assert_eq!(hooks.call(|| 7), Some(7));
        both.close();
        assert_eq!(hooks.call(|| 7), None);
    }
}
