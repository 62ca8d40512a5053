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
    if job.resume
        && let Some((checkpoint, warnings)) = Checkpoint::load_newest(&job.folder)?
    {
        verify(job, &run.guide.identity(), &checkpoint)?;
        run.load_state(&checkpoint.state, checkpoint.step)?;
        for warning in warnings {
            reporter.emit(&Event::warning(warning));
        }
        reporter.emit(&Event::Resumed { step: checkpoint.step });
        return Ok(checkpoint.step);
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
    Ok(0)
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
        return refuse(format!("the interrupted run's prior was {}, not {identity}", checkpoint.prior));
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
