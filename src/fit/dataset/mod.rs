//! Folders of posed pictures: reading ([`load`]) and making ([`mod@write`]) them.
//!
//! The layouts of NeRF-synthetic (`transforms_train.json`, `transforms_test.json`,
//! `camera_angle_x`) and of instant-ngp (`transforms.json` with `fl_x` …) are read; poses are
//! camera-to-world with OpenGL axes (x right, y up, z backward). The worlds of both have +Z up;
//! [`Up`] says so, and everything past [`load`] has +Y up, as the engine's assets.

pub mod lens;
pub mod picture;
#[cfg(test)]
mod tests;
mod transforms;
pub mod write;

use std::path::{Path, PathBuf};

use glam::{DMat3, DVec3};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{Error, Result};
use lens::{Lens, Pose};
use picture::Picture;

/// Pixels of all pictures together.
const MAX_PIXELS: u64 = 1 << 28;
/// Every so many frames one is held out, where the folder does not say which.
const HOLD_EVERY: usize = 8;
/// Fewer frames than this are all trained on.
const HOLD_FROM: usize = 16;

/// Which axis points up in the poses' world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Up {
    /// +Y, as in glTF.
    Y,
    /// +Z, as in Blender, NeRF-synthetic and instant-ngp.
    Z,
}

impl Up {
    /// From the poses' world to one with +Y up.
    pub fn to_y(self) -> DMat3 {
        match self {
            Self::Y => DMat3::IDENTITY,
            Self::Z => DMat3::from_cols(DVec3::X, DVec3::NEG_Z, DVec3::Y),
        }
    }
}

/// A picture and its camera.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Where it came from.
    pub path: PathBuf,
    /// Intrinsics.
    pub lens: Lens,
    /// Camera to world, +Y up.
    pub pose: Pose,
    /// What was seen.
    pub picture: Picture,
}

/// The pictures to learn from and those to be judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// To learn from.
    pub train: Vec<View>,
    /// Held out; may be empty.
    pub test: Vec<View>,
}

/// Reads `folder` (or one transforms file).
///
/// # Errors
/// With hints: no transforms, broken JSON, missing or broken pictures, impossible poses and
/// intrinsics, more pixels than fit.
pub fn load(folder: &Path, up: Up) -> Result<Dataset> {
    let (train, test) = files(folder)?;
    let mut train = transforms::read(&train)?;
    let test = match test {
        Some(path) => transforms::read(&path)?,
        None => hold_out(&mut train),
    };
    let pixels = |p: &transforms::Posed| u64::from(p.lens.width) * u64::from(p.lens.height);
    let total: u64 = train.iter().chain(&test).map(pixels).sum();
    if total > MAX_PIXELS {
        let reason = format!("the pictures have {total} pixels together; {MAX_PIXELS} are read");
        return Err(Error::file(folder, reason).hint("scale the pictures down or leave some out"));
    }
    let dataset = Dataset { train: views(train, up)?, test: views(test, up)? };
    if dataset.train.iter().all(|v| v.picture.seen().is_none()) {
        return Err(Error::file(folder, "every picture is empty").hint("the alpha channel is 0 everywhere"));
    }
    Ok(dataset)
}

impl Dataset {
    /// Some picture has an alpha channel that is used: the background is nothing to be learned.
    pub fn has_alpha(&self) -> bool {
        self.train.iter().any(|v| v.picture.has_alpha && v.picture.rgba.iter().any(|p| p[3] < 255))
    }

    /// SHA-256 over cameras and pixels: a checkpoint is only continued on the same pictures.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for views in [&self.train, &self.test] {
            hash.update((views.len() as u64).to_le_bytes());
            for v in views {
                let l = &v.lens;
                hash.update([l.width, l.height].map(u32::to_le_bytes).concat());
                let numbers = [l.focal.to_array(), l.center.to_array(), l.tangential].concat();
                let pose = [v.pose.rotation.to_cols_array().as_slice(), &v.pose.position.to_array()].concat();
                for x in numbers.iter().chain(&l.radial).chain(&pose) {
                    hash.update(x.to_le_bytes());
                }
                hash.update(v.picture.rgba.as_flattened());
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The training file, and the held-out one if there is one.
fn files(folder: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    if folder.is_file() {
        return Ok((folder.to_owned(), None));
    }
    if !folder.is_dir() {
        return Err(Error::invalid(folder.display().to_string(), "no such folder")
            .hint("`gen3d render MODEL --dataset FOLDER` makes one"));
    }
    let some = |name: &str| Some(folder.join(name)).filter(|p| p.is_file());
    let train = some("transforms_train.json").or_else(|| some("transforms.json"));
    match train {
        Some(train) => Ok((train, some("transforms_test.json"))),
        None => Err(Error::invalid(folder.display().to_string(), "holds no transforms.json")
            .hint("expected are posed pictures in the NeRF-synthetic or instant-ngp layout")),
    }
}

fn hold_out(train: &mut Vec<transforms::Posed>) -> Vec<transforms::Posed> {
    if train.len() < HOLD_FROM {
        return Vec::new();
    }
    let all = std::mem::take(train);
    let mut test = Vec::new();
    for (i, posed) in all.into_iter().enumerate() {
        if i % HOLD_EVERY == HOLD_EVERY - 1 { test.push(posed) } else { train.push(posed) }
    }
    test
}

fn views(posed: Vec<transforms::Posed>, up: Up) -> Result<Vec<View>> {
    let turn = up.to_y();
    posed
        .into_par_iter()
        .map(|p| {
            let picture = picture::read(&p.path)?;
            let pose = Pose { rotation: turn * p.pose.rotation, position: turn * p.pose.position };
            Ok(View { path: p.path, lens: p.lens, pose, picture })
        })
        .collect()
}
