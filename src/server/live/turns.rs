//! Who may change the agent: one at a time, and a reload before settings, of
//! which there may be no end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    /// Reloads that wait.
    reloads: usize,
}

/// The right to change the agent, until it is dropped.
pub(in crate::server) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(super) fn for_reload(&self) -> Turn<'_> {
        let mut state = self.lock();
        state.reloads += 1;
        let mut state = self.wait_while(state, |state| state.is_taken);
        state.reloads -= 1;
        state.is_taken = true;
        Turn(self)
    }

    pub(super) fn for_settings(&self) -> Turn<'_> {
        let state = self.lock();
        let mut state = self.wait_while(state, |state| state.is_taken || state.reloads > 0);
        state.is_taken = true;
        Turn(self)
    }

    fn wait_while<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.ended.wait_while(state, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing in the state can be half-changed by a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().is_taken = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_reload_goes_before_settings_that_came_first() {
        let turns = Turns::default();
        std::thread::scope(|scope| {
            let first = turns.for_settings();
            let (sender, order) = channel();
            let settings = sender.clone();
            scope.spawn({
                let turns = &turns;
                move || {
                    let _turn = turns.for_reload();
                    sender.send("reload").unwrap();
                }
            });
            while turns.lock().reloads == 0 {
                std::thread::yield_now();
            }
            scope.spawn({
                let turns = &turns;
                move || {
                    let _turn = turns.for_settings();
                    settings.send("settings").unwrap();
                }
            });
            drop(first);
            let order: Vec<&str> = order.iter().collect();
            assert_eq!(order, ["reload", "settings"]);
        });
    }
}
