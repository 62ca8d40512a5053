//! Where a run begins: at zero, or where its newest checkpoint stands.

use super::Job;
use super::checkpoint::Checkpoint;
use super::event::Event;
use super::optimize::Run;
use super::reporter::Reporter;
use crate::config::Config;
use crate::{Error, Result};

/// Prepares the run; returns the number of steps already done.
pub(super) fn begin(job: &Job, run: &mut Run<'_>, reporter: &mut Reporter<'_, '_>) -> Result<u32> {
    let Some(checkpoint) = newest(job, &run.identity(), reporter)? else { return Ok(0) };
    run.load_state(&checkpoint.state, checkpoint.step)?;
    reporter.emit(&Event::Resumed { step: checkpoint.step });
    Ok(checkpoint.step)
}

/// The checkpoint to go on from. Without one the folder is ready for a new run.
pub(super) fn newest(
    job: &Job,
    identity: &str,
    reporter: &mut Reporter<'_, '_>,
) -> Result<Option<Checkpoint>> {
    if job.resume
        && let Some((checkpoint, warnings)) = Checkpoint::load_newest(&job.folder)?
    {
        verify(job, identity, &checkpoint)?;
        for warning in warnings {
            reporter.emit(&Event::warning(warning));
        }
        return Ok(Some(checkpoint));
    }
    let replaced = replaces(job);
    Checkpoint::remove_all(&job.folder)?;
    job.folder.forget_previews();
    reporter.clear_log()?;
    if job.resume {
        reporter.emit(&Event::warning("there is no checkpoint to resume; starting from the beginning"));
    }
    if let Some(event) = replaced {
        reporter.emit(&event);
    }
    Ok(None)
}

/// A run continues only what it would itself have begun.
fn verify(job: &Job, identity: &str, checkpoint: &Checkpoint) -> Result<()> {
    let refuse = |reason: String| {
        Err(Error::invalid("--resume", reason).hint("leave out what differs, or start anew without --resume"))
    };
    if checkpoint.prompt != job.prompt {
        return refuse(format!("the interrupted run's prompt was \"{}\"", checkpoint.prompt));
    }
    if checkpoint.prior != identity {
        return refuse(format!("the interrupted run went by {}, this one by {identity}", checkpoint.prior));
    }
    let config = Config::from_toml(&checkpoint.config, "the checkpoint's configuration")?;
    let keys = config.differences(&job.config);
    if !keys.is_empty() {
        return refuse(format!("the interrupted run had another {}", keys.join(", ")));
    }
    if checkpoint.step > job.config.steps() {
        return refuse(format!("the checkpoint has {} steps", checkpoint.step));
    }
    Ok(())
}

/// A warning, if starting anew throws an unfinished run away.
fn replaces(job: &Job) -> Option<Event> {
    let (checkpoint, _) = Checkpoint::load_newest(&job.folder).ok()??;
    let steps = Config::from_toml(&checkpoint.config, "checkpoint").ok()?.steps();
    (checkpoint.step < steps).then(|| Event::Warning {
        message: format!("replacing an unfinished run ({} of {steps} steps)", checkpoint.step),
        hint: Some("--resume would have continued it".into()),
    })
}
