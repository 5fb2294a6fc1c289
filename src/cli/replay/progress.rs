//! Shows the progress of a replay, and ends it on Ctrl-C.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::capture::Capture;
use crate::ops::replay::Watch;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::render;

/// How often the progress bar looks.
const TICK: Duration = Duration::from_millis(100);

/// The first signal ends the replay cleanly, a second one at once, like one that
/// comes when the result already stands.
pub(super) fn on_signal(watch: &Arc<Watch>) {
    let watch = Arc::clone(watch);
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                watch.stop.store(true, Ordering::SeqCst);
                if watch.ended.load(Ordering::SeqCst) {
                    end_at_once();
                }
                render::to_stderr("interrupted; finishing the current transactions, interrupt again to stop at once");
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                end_at_once();
            }
        });
    };
    // Without the thread a signal ends the process, as it would anyway.
    let _ = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait);
}

#[expect(
    clippy::exit,
    reason = "nothing is left to finish, or the user asked twice; 130 is what a shell shows for it"
)]
fn end_at_once() {
    std::process::exit(130);
}

/// Shows how far the replay is while `work` goes on.
pub(super) fn shown<T>(captures: &[Capture], watch: &Watch, work: impl FnOnce() -> T) -> T {
    let total: Option<u64> = captures.iter().map(|capture| capture.size_bytes).sum();
    // It hides itself where standard error is no terminal.
    let bar = match total {
        Some(total) => ProgressBar::new(total).with_style(style(
            "{bar:30} {percent:>3} %  {bytes}/{total_bytes}  {msg}  {eta} left",
        )),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes}  {msg}  {elapsed}")),
    };
    std::thread::scope(|scope| {
        // Dropped where the work ends, also where it panics: nobody else tells.
        let (end, ended) = mpsc::channel::<()>();
        let bar = &bar;
        scope.spawn(move || {
            while ended.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                show(bar, watch);
            }
        });
        let result = work();
        drop(end);
        bar.finish_and_clear();
        result
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people, of counts far below 2^52"
)]
fn show(bar: &ProgressBar, watch: &Watch) {
    bar.set_position(watch.read_bytes.load(Ordering::Relaxed));
    let transactions = watch.transactions.load(Ordering::Relaxed);
    let seconds = bar.elapsed().as_secs_f64().max(0.001);
    bar.set_message(format!(
        "{} transactions, {:.0}/s",
        render::human::count(transactions),
        transactions as f64 / seconds
    ));
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic goes on, and nothing waits for a work that has none left.
    #[test]
    fn a_panic_ends_what_shows_the_progress() {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let watch = Watch::default();
            let work = || shown(&[], &watch, || std::panic::resume_unwind(Box::new(7)));
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            tell.send(panic.err().and_then(|it| it.downcast::<i32>().ok()))
        });
        let panic = told.recv_timeout(Duration::from_secs(60));
        assert_eq!(panic.expect("it spins").as_deref(), Some(&7));
    }
}
