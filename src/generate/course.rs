//! The common part of runs that go from step to step: previews and checkpoints on the way, a way to stop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::checkpoint::Checkpoint;
use super::event::Event;
use super::folder::RunFolder;
use super::history::Due;
use super::reporter::Reporter;
use super::timing::Timings;
use crate::config::Config;
use crate::{Error, Result};

/// What goes from step to step.
pub(crate) trait Course {
    /// One step, from 0.
    fn step(&mut self, step: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) -> Result<()>;
    /// Draws what `step` has come to as far as it is `due`, and tells where it was written.
    fn show(&mut self, step: u32, due: Due) -> Result<Vec<PathBuf>>;
    /// Everything that is needed to go on at `step`.
    fn checkpoint(&self, step: u32) -> Result<Checkpoint>;
}

/// Steps `first` … to the end, with previews and checkpoints on the way and a checkpoint at the end.
///
/// # Errors
/// A step's; [`Error::Interrupted`] when `cancel` became true and a checkpoint was saved.
pub(crate) fn follow(
    course: &mut dyn Course,
    first: u32,
    (config, folder): (&Config, &RunFolder),
    cancel: &AtomicBool,
    timings: &mut Timings,
    reporter: &mut Reporter<'_, '_>,
) -> Result<()> {
    let (steps, output) = (config.optim.steps, &config.output);
    for step in first..steps {
        if cancel.load(Ordering::Relaxed) {
            save(course, step, folder, timings, reporter)?;
            return Err(Error::Interrupted);
        }
        course.step(step, timings, reporter)?;
        let done = step + 1;
        let due = Due::after(done, config);
        if due.any() {
            match timings.time("optimize.preview", || course.show(step, due)) {
                Ok(paths) => paths.into_iter().for_each(|path| reporter.emit(&Event::Preview { path })),
                Err(e) => reporter.survive(Err(e)),
            }
        }
        if output.checkpoint_every > 0 && done.is_multiple_of(output.checkpoint_every) && done < steps {
            // A full disk now may have space again later; what was saved before is still there.
            let saved = save(course, done, folder, timings, reporter);
            reporter.survive(saved);
        }
    }
    let saved = if first < steps { save(course, steps, folder, timings, reporter) } else { Ok(()) };
    reporter.survive(saved);
    match cancel.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

fn save(
    course: &dyn Course,
    step: u32,
    folder: &RunFolder,
    timings: &mut Timings,
    reporter: &mut Reporter<'_, '_>,
) -> Result<()> {
    let path = timings.time("optimize.checkpoint", || course.checkpoint(step)?.save(folder))?;
    reporter.emit(&Event::Checkpoint { path, step });
    Ok(())
}
