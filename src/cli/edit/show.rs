//! Progress of edits on the terminal, or as JSON lines.

use std::io::{IsTerminal, Write as _};

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::jobs::Task;
use super::watch::Watch;
use crate::Error;
use crate::cli::progress::print_line;
use crate::cli::report;
use crate::video::job::{Report, Stage, Update};

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
    start: Instant,
    watch: Watch,
}

impl Show {
    pub(super) fn new(quiet: bool, json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let (start, watch) = (Instant::now(), Watch::default());
        Self { quiet, json, terminal, bar: ProgressBar::hidden(), stage: None, tenths: 0, start, watch }
    }

    pub(super) fn begin(&mut self, number: usize, of: usize, task: &Task) {
        (self.start, self.watch) = (Instant::now(), Watch::default());
        self.stage = None;
        self.say(&format!("[{}/{of}] {}", number + 1, task.input.display()));
    }

    pub(super) fn progress(&mut self, update: Update) {
        let Update { stage, share, step } = update;
        let left = self.watch.tick(update, self.start.elapsed().as_secs_f64());
        if self.stage != Some(stage) {
            self.start(stage);
        }
        if let Some(left) = left {
            self.bar.set_message(format!("{} left", duration(left)));
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
            let line = json!({"event": "progress", "stage": stage, "share": share,
                "part": step.map(|s| s.part), "seconds_left": left});
            print_line(&line.to_string());
        }
        if !self.terminal {
            let left = left.map(|s| format!(", {} left", duration(s))).unwrap_or_default();
            self.say(&format!("{} {} %{left}", label(stage), tenths * 10));
        }
    }

    fn start(&mut self, stage: Stage) {
        self.close();
        (self.stage, self.tenths) = (Some(stage), 0);
        if self.quiet || !self.terminal {
            return;
        }
        let style =
            ProgressStyle::with_template("{prefix:<8} {wide_bar} {percent} %  {elapsed} elapsed  {msg}");
        // The template is a literal; a broken one falls back to the plain bar.
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = ProgressBar::new(STEPS).with_style(style);
        self.bar.set_prefix(label(stage));
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
                "left_out": done.written.left_out,
                "seconds_of": self.watch.parts().map(|(k, s)| (k.to_owned(), json!(s))).collect::<serde_json::Map<_, _>>()});
            print_line(&line.to_string());
        }
        let kib = done.written.bytes.div_ceil(1024);
        self.say(&format!(
            "{}: {} frames, {kib} KiB, {seconds:.1} s",
            task.output.display(),
            done.written.frames
        ));
        let each = |seconds: f64| 1e3 * seconds / done.written.frames.max(1) as f64;
        let parts: Vec<String> =
            self.watch.parts().map(|(name, seconds)| format!("{name} {:.0}", each(seconds))).collect();
        if !parts.is_empty() {
            self.say(&format!("ms a frame: {}", parts.join(", ")));
        }
    }

    /// The preview is there.
    pub(super) fn preview(&mut self, picture: &std::path::Path) {
        if self.json {
            print_line(&json!({"event": "preview", "picture": picture}).to_string());
        }
        self.say(&format!("{}: the first frame; the rest follows", picture.display()));
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

/// `1:02:03`, `2:03`, `7 s`.
fn duration(seconds: f64) -> String {
    let s = seconds.round().clamp(0.0, 1e9) as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{}:{:02}", s / 60, s % 60),
        _ => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
    }
}

fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "reading",
        Stage::Preview => "preview",
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
