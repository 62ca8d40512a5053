//! Events go to the listener and, one JSON object a line, to `log.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use super::event::{Event, Listener};
use super::folder::RunFolder;
use crate::{Error, Result};

/// The run's way to tell.
pub(crate) struct Reporter<'a, 'b> {
    listener: &'a mut Listener<'b>,
    path: PathBuf,
    /// Opened at the first event; `None` after a write failed.
    log: Option<File>,
    failed: bool,
}

impl<'a, 'b> Reporter<'a, 'b> {
    pub(crate) fn new(folder: &RunFolder, listener: &'a mut Listener<'b>) -> Self {
        Self { listener, path: folder.file("log.jsonl"), log: None, failed: false }
    }

    /// Begins the log anew.
    pub(crate) fn clear_log(&mut self) -> Result<()> {
        File::create(&self.path).map(drop).map_err(|e| Error::io(&self.path, e))
    }

    /// Tells everybody. A log that cannot be written is worth a warning, not the run.
    pub(crate) fn emit(&mut self, event: &Event) {
        (self.listener)(event);
        if self.failed {
            return;
        }
        if let Err(e) = self.write(event) {
            self.failed = true;
            (self.listener)(&Event::warning(format!("{}; the log ends here", Error::io(&self.path, e))));
        }
    }

    /// Tells of a failure that the run survives.
    pub(crate) fn survive(&mut self, result: Result<()>) {
        if let Err(e) = result {
            let hint = e.hint_text().map(str::to_owned);
            self.emit(&Event::Warning { message: e.to_string(), hint });
        }
    }

    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        if self.log.is_none() {
            self.log = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        // One write a line: a killed run leaves whole lines.
        self.log.as_mut().map_or(Ok(()), |log| log.write_all(&line))
    }
}
