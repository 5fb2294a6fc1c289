//! Who may change the agent: one at a time, and a reload before settings, of
//! which there may be no end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::server::lock;

#[derive(Default)]
pub(super) struct ChangeLock {
    state: Mutex<Changes>,
    ended: Condvar,
}

#[derive(Default)]
struct Changes {
    is_taken: bool,
    /// Reloads that wait.
    reloads: usize,
}

/// The right to change the agent, until it is dropped.
pub(in crate::server) struct ChangeGuard<'a>(&'a ChangeLock);

impl ChangeLock {
    pub(super) fn for_reload(&self) -> ChangeGuard<'_> {
        let mut state = lock(&self.state);
        state.reloads += 1;
        let mut state = self.wait_while(state, |state| state.is_taken);
        state.reloads -= 1;
        state.is_taken = true;
        ChangeGuard(self)
    }

    pub(super) fn for_settings(&self) -> ChangeGuard<'_> {
        let state = lock(&self.state);
        let mut state = self.wait_while(state, |state| state.is_taken || state.reloads > 0);
        state.is_taken = true;
        ChangeGuard(self)
    }

    fn wait_while<'a>(
        &'a self,
        state: MutexGuard<'a, Changes>,
        condition: impl Fn(&Changes) -> bool,
    ) -> MutexGuard<'a, Changes> {
        let waited = self.ended.wait_while(state, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChangeGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_taken = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_reload_goes_before_settings_that_came_first() {
        let changes = ChangeLock::default();
        std::thread::scope(|scope| {
            let first = changes.for_settings();
            let (sender, order) = channel();
            let settings = sender.clone();
            scope.spawn({
                let changes = &changes;
                move || {
                    let _turn = changes.for_reload();
                    sender.send("reload").unwrap();
                }
            });
            while lock(&changes.state).reloads == 0 {
                std::thread::yield_now();
            }
            scope.spawn({
                let changes = &changes;
                move || {
                    let _turn = changes.for_settings();
                    settings.send("settings").unwrap();
                }
            });
            drop(first);
            let order: Vec<&str> = order.iter().collect();
            assert_eq!(order, ["reload", "settings"]);
        });
    }
}
