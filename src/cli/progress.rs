//! A run's events on the terminal: bars with an ETA where there is one, sparse lines where not.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::report;
use crate::generate::event::{Event, FitScore, Stage, Summary};
use crate::{Error, Result};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Errors only.
    Quiet,
    /// Progress and warnings.
    Normal,
    /// And the table of timings.
    Verbose,
}

impl Mode {
    /// Of the flags `--quiet` and `--verbose`.
    pub(crate) fn of(quiet: bool, verbose: bool) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (_, true) => Self::Verbose,
            _ => Self::Normal,
        }
    }
}

/// The listener that shows events.
pub(crate) struct Display {
    mode: Mode,
    json: bool,
    terminal: bool,
    bar: ProgressBar,
    stage: Option<(Stage, Instant)>,
    /// Tenths of the steps that have been announced where there is no terminal.
    tenths: u32,
}

impl Display {
    pub(crate) fn new(mode: Mode, json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { mode, json, terminal, bar: ProgressBar::hidden(), stage: None, tenths: 0 }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Event) {
        if self.json
            && let Ok(line) = serde_json::to_string(event)
        {
            print_line(&line);
        }
        if self.mode == Mode::Quiet {
            return;
        }
        match event {
            Event::Device { name, reason } => {
                if self.mode == Mode::Verbose {
                    self.say(&format!("device: {name} ({reason})"));
                }
            }
            Event::Memory { field, prior, available } => self.memory(*field, *prior, *available),
            Event::StageStarted { stage } => self.start(*stage),
            Event::Resumed { step } => self.say(&format!("resumed after step {step}")),
            Event::Restarted { step, reason, seed } => {
                let text = format!("{reason} after {step} steps: beginning again with seed {seed}");
                self.bar.suspend(|| report::warning(&text, None));
                self.tenths = 0;
            }
            Event::Step(report) => self.step(report.step, report.steps),
            Event::FitStep(report) => self.step(report.step, report.steps),
            Event::FitScore(score) => self.say(&agreement(score)),
            Event::Started { .. } | Event::Preview { .. } | Event::Checkpoint { .. } => {}
            Event::Warning { message, hint } => {
                self.bar.suspend(|| report::warning(message, hint.as_deref()));
            }
            Event::Finished(summary) => self.finish(summary),
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn close(&mut self) {
        self.bar.finish_and_clear();
    }

    /// How a resumable command ends: its product's path on stdout, or the error with what to do.
    pub(crate) fn end(mut self, summary: Result<Summary>) -> anyhow::Result<()> {
        self.close();
        let summary = summary.map_err(|e| match e {
            Error::Interrupted => e.hint("the same command with --resume goes on from there"),
            other => other,
        })?;
        if !self.json {
            print_line(&summary.output.display().to_string());
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// Always for what may strain a machine, else for who asked for more.
    fn memory(&self, field: u64, prior: u64, available: Option<u64>) {
        if self.mode == Mode::Verbose || field + prior > 2 << 30 {
            let free = available.map_or(String::new(), |a| format!("; {} are free", gib(a)));
            let text = format!("needs about {} for the prior and {} for the field", gib(prior), gib(field));
            self.say(&format!("{text}{free}"));
        }
    }

    fn start(&mut self, stage: Stage) {
        self.end_stage();
        self.stage = Some((stage, Instant::now()));
        if !self.terminal {
            self.say(stage.label());
            return;
        }
        self.bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}"));
        self.bar.set_message(stage.label());
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    fn step(&mut self, step: u32, steps: u32) {
        if self.terminal {
            if self.bar.length().is_none() {
                self.bar.set_style(style("{msg:<11} {wide_bar} {pos}/{len}  {elapsed} elapsed, {eta} left"));
                self.bar.set_length(steps.into());
                // A resumed run's first position: the ETA must not count the steps done before.
                self.bar.set_position((step - 1).into());
                self.bar.reset_eta();
            }
            self.bar.set_position(step.into());
            return;
        }
        let tenths = step * 10 / steps;
        if tenths > self.tenths {
            self.tenths = tenths;
            self.say(&format!("step {step} of {steps} ({} %)", tenths * 10));
        }
    }

    /// On a terminal, the bar gives way to one line that stays.
    fn end_stage(&mut self) {
        self.bar.finish_and_clear();
        if let Some((stage, start)) = self.stage.take()
            && self.terminal
        {
            self.say(&format!("{:<19} {}", stage.label(), seconds(start.elapsed().as_secs_f64())));
        }
    }

    fn finish(&mut self, summary: &Summary) {
        self.end_stage();
        let kib = summary.bytes.div_ceil(1024);
        let text = format!("{} triangles, {kib} KiB, {}", summary.mesh.triangles, seconds(summary.seconds));
        self.say(&text);
        for other in &summary.others {
            self.say(&format!("another: {}", other.display()));
        }
        if self.mode == Mode::Verbose {
            self.say(&table(summary));
            if summary.peak_memory > 0 {
                self.say(&format!("held {} at most", gib(summary.peak_memory)));
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are literals of this file; a broken one falls back to the plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

fn seconds(s: f64) -> String {
    if s < 60.0 { format!("{s:.1} s") } else { format!("{} min {:02} s", s as u64 / 60, s as u64 % 60) }
}

/// How well a fit agrees with its pictures.
fn agreement(score: &FitScore) -> String {
    let kind = if score.held_out { "held-out" } else { "training" };
    let mut text = format!("PSNR over {} {kind} pictures: field {:.2} dB", score.pictures, score.field_psnr);
    if let Some(psnr) = score.mesh_psnr {
        text += &format!(", mesh {psnr:.2} dB");
    }
    if let Some(chamfer) = score.chamfer {
        text += &format!("; Chamfer distance {:.3} % of the diagonal", 100.0 * chamfer);
    }
    text
}

/// The timings as an aligned table with shares of the whole.
fn table(summary: &Summary) -> String {
    let width = summary.timings.iter().map(|t| t.name.len()).max().unwrap_or(0);
    let rows = summary.timings.iter().map(|t| {
        let share = 100.0 * t.seconds / summary.seconds.max(1e-9);
        let each = 1000.0 * t.seconds / f64::from(t.calls.max(1));
        format!("{:<width$}  {:>6} x {each:>9.1} ms = {:>8.2} s  {share:>5.1} %", t.name, t.calls, t.seconds)
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// One line of data on stdout. A reader that has gone away (`| head`) is not an error.
pub(crate) fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
