//! Progress of edits on the terminal, or as JSON lines.

use std::io::{IsTerminal, Write as _};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::jobs::Task;
use crate::Error;
use crate::cli::progress::print_line;
use crate::cli::report;
use crate::video::job::{Report, Stage};

/// Steps of a bar.
const STEPS: u64 = 1000;

pub(super) struct Show {
    quiet: bool,
    json: bool,
    terminal: bool,
    bar: ProgressBar,
    stage: Option<Stage>,
    /// Tenths of the stage that have been told where there is no terminal.
    tenths: u64,
}

impl Show {
    pub(super) fn new(quiet: bool, json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { quiet, json, terminal, bar: ProgressBar::hidden(), stage: None, tenths: 0 }
    }

    pub(super) fn begin(&mut self, number: usize, of: usize, task: &Task) {
        self.stage = None;
        self.say(&format!("[{}/{of}] {}", number + 1, task.input.display()));
    }

    pub(super) fn progress(&mut self, stage: Stage, share: Option<f64>) {
        if self.stage != Some(stage) {
            self.start(stage);
        }
        let Some(share) = share else { return self.bar.tick() };
        let share = share.clamp(0.0, 1.0);
        self.bar.set_position((share * STEPS as f64) as u64);
        let tenths = (share * 10.0 + 1e-9) as u64;
        if tenths <= self.tenths {
            return;
        }
        self.tenths = tenths;
        if self.json {
            print_line(&json!({"event": "progress", "stage": stage, "share": share}).to_string());
        }
        if !self.terminal {
            self.say(&format!("{} {} %", label(stage), tenths * 10));
        }
    }

    fn start(&mut self, stage: Stage) {
        self.close();
        (self.stage, self.tenths) = (Some(stage), 0);
        if self.quiet || !self.terminal {
            return;
        }
        let style =
            ProgressStyle::with_template("{msg:<8} {wide_bar} {percent} %  {elapsed} elapsed, {eta} left");
        // The template is a literal; a broken one falls back to the plain bar.
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = ProgressBar::new(STEPS).with_style(style);
        self.bar.set_message(label(stage));
    }

    /// Takes the bar off the screen.
    pub(super) fn close(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
    }

    pub(super) fn finished(&mut self, task: &Task, done: &Report, seconds: f64) {
        self.stage = None;
        for loss in &done.written.left_out {
            self.warn(&format!("left out: {loss}"), None);
        }
        for (text, hint) in remarks(done) {
            self.warn(&text, hint);
        }
        if self.json {
            let line = json!({"event": "finished", "input": task.input, "output": task.output,
                "frames": done.written.frames, "bytes": done.written.bytes, "seconds": seconds,
                "left_out": done.written.left_out});
            print_line(&line.to_string());
        }
        let kib = done.written.bytes.div_ceil(1024);
        self.say(&format!(
            "{}: {} frames, {kib} KiB, {seconds:.1} s",
            task.output.display(),
            done.written.frames
        ));
    }

    pub(super) fn failed(&mut self, task: &Task, error: &Error) {
        if self.json {
            let line = json!({"event": "failed", "input": task.input, "error": error.to_string()});
            print_line(&line.to_string());
        }
        report::warning(&format!("failed: {error}"), error.hint_text());
    }

    pub(super) fn skipped(&mut self, task: &Task) {
        self.say(&format!("{}: done before", task.output.display()));
    }

    fn warn(&self, text: &str, hint: Option<&str>) {
        if !self.quiet {
            report::warning(text, hint);
        }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| {
                // Nothing can be done if stderr is closed.
                let _ = writeln!(std::io::stderr(), "{text}");
            });
        }
    }
}

fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "reading",
        Stage::Edit => "editing",
        Stage::Write => "writing",
    }
}

/// What the user should know of a source that could be read all the same.
fn remarks(report: &Report) -> Vec<(String, Option<&'static str>)> {
    let damage = report.damage;
    let mut out = Vec::new();
    if damage.cut_off {
        out.push(("the source ends before its index says; what was there was written".into(), None));
    }
    if damage.packets > 0 {
        out.push((format!("{} packets of the source are damaged", damage.packets), None));
    }
    if damage.stamps > 0 {
        out.push((
            format!("{} frames had no usable time and follow their predecessors", damage.stamps),
            None,
        ));
    }
    if report.interlaced {
        let hint = "deinterlace first for clean edits: ffmpeg -i in.mp4 -vf bwdif -c:a copy out.mkv";
        out.push(("the source is interlaced and was written as whole frames".into(), Some(hint)));
    }
    out
}
