//! `transforms.json` (NeRF-synthetic, instant-ngp, nerfstudio): frames with poses and intrinsics.

use std::path::{Path, PathBuf};

use glam::{DMat3, DVec2, DVec3};
use serde_json::{Map, Value};

use super::lens::{Lens, Pose};
use super::picture;
use crate::{Error, Result};

/// More frames than this are a mistake.
const MAX_FRAMES: usize = 10_000;
/// How far RᵀR may be from a multiple of the identity.
const ORTHONORMAL: f64 = 0.01;

/// A picture file with its camera.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Posed {
    pub(super) path: PathBuf,
    pub(super) lens: Lens,
    pub(super) pose: Pose,
}

/// Reads the frames of one file; the pictures' headers are read for their sizes.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`], each naming the frame.
pub(super) fn read(path: &Path) -> Result<Vec<Posed>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let bad = |reason: String| Error::file(path, reason);
    let value: Value = serde_json::from_str(&text).map_err(|e| {
        let hint = "NaN and Infinity are no JSON: was a pose not solved?";
        bad(format!("not JSON: {e}")).hint(hint)
    })?;
    let root = value.as_object().ok_or_else(|| bad("not a JSON object".into()))?;
    let frames = root.get("frames").and_then(Value::as_array).ok_or_else(|| {
        bad("has no list `frames`".into()).hint("the NeRF-synthetic and instant-ngp layouts are read")
    })?;
    if frames.is_empty() || frames.len() > MAX_FRAMES {
        return Err(bad(format!("{} frames; 1 to {MAX_FRAMES} are read", frames.len())));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let read = |(i, frame): (usize, &Value)| {
        let at = |reason: String| Error::file(path, format!("frame {i}: {reason}"));
        let frame = frame.as_object().ok_or_else(|| at("not an object".into()))?;
        let name = frame.get("file_path").and_then(Value::as_str).filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| at("has no `file_path`".into()))?;
        let file = picture::find(folder, name, path)?;
        let size = picture::size(&file)?;
        let lens = lens(root, frame, size).map_err(|(reason, hint)| at(reason).hint(hint))?;
        let pose = pose(frame).map_err(|(reason, hint)| at(reason).hint(hint))?;
        Ok(Posed { path: file, lens, pose })
    };
    frames.iter().enumerate().map(read).collect()
}

/// What is wrong, and what to do.
type Wrong = (String, &'static str);

/// A number of the frame, or else of the file.
fn number(root: &Map<String, Value>, frame: &Map<String, Value>, key: &str) -> Result<Option<f64>, Wrong> {
    match frame.get(key).or_else(|| root.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => match v.as_f64().filter(|x| x.is_finite()) {
            Some(x) => Ok(Some(x)),
            None => Err((format!("`{key}` is not a number"), "intrinsics are in pixels")),
        },
    }
}

fn lens(
    root: &Map<String, Value>,
    frame: &Map<String, Value>,
    (width, height): (u32, u32),
) -> Result<Lens, Wrong> {
    let get = |key: &str| number(root, frame, key);
    if let Some(model) =
        frame.get("camera_model").or_else(|| root.get("camera_model")).and_then(Value::as_str)
        && (model.to_ascii_uppercase().contains("FISHEYE") || model.eq_ignore_ascii_case("EQUIRECTANGULAR"))
    {
        return Err((format!("the camera model {model} is not read"), "undistort the pictures first"));
    }
    let picture = DVec2::new(f64::from(width), f64::from(height));
    let written = DVec2::new(get("w")?.unwrap_or(picture.x), get("h")?.unwrap_or(picture.y));
    // Pictures that were scaled down after their poses were found.
    let scale = picture / written;
    if !(written.min_element() >= 1.0 && (scale.x / scale.y - 1.0).abs() < 0.02) {
        let reason = format!("the picture has {width} × {height} pixels, not {} × {}", written.x, written.y);
        return Err((reason, "`w` and `h` must have the shape of the pictures"));
    }
    let angle = |key: &str, side: f64| -> Result<Option<f64>, Wrong> {
        match get(key)? {
            None => Ok(None),
            Some(a) if a > 0.0 && a < 3.1 => Ok(Some(0.5 * side / (0.5 * a).tan())),
            Some(a) => Err((format!("`{key}` is {a}"), "it is an angle in radians")),
        }
    };
    let fx = get("fl_x")?.map(|f| f * scale.x).or(angle("camera_angle_x", picture.x)?);
    let fy = get("fl_y")?.map(|f| f * scale.y).or(angle("camera_angle_y", picture.y)?);
    let (fx, fy) = match (fx, fy) {
        (Some(x), Some(y)) => (x, y),
        (Some(f), None) | (None, Some(f)) => (f, f),
        (None, None) => {
            return Err(("no focal length".into(), "give `fl_x` in pixels or `camera_angle_x` in radians"));
        }
    };
    if !(fx > 0.01 * picture.x && fy > 0.01 * picture.y && fx.max(fy) < 1e3 * picture.max_element()) {
        return Err((format!("the focal length {fx} × {fy} is impossible"), "it is in pixels"));
    }
    let center = DVec2::new(
        get("cx")?.map_or(0.5 * picture.x, |c| c * scale.x),
        get("cy")?.map_or(0.5 * picture.y, |c| c * scale.y),
    );
    if (center - 0.5 * picture).abs().max_element() > picture.max_element() {
        return Err((format!("the principal point {center} is far outside"), "`cx` and `cy` are in pixels"));
    }
    let zero = |key: &str| get(key).map(|v| v.unwrap_or(0.0));
    if zero("k4")? != 0.0 {
        return Err(("`k4` is not read".into(), "undistort the pictures first"));
    }
    let radial = [zero("k1")?, zero("k2")?, zero("k3")?];
    let tangential = [zero("p1")?, zero("p2")?];
    if radial.iter().chain(&tangential).any(|k| k.abs() > 2.0) {
        return Err(("its distortion is not that of a lens".into(), "undistort the pictures first"));
    }
    Ok(Lens { focal: DVec2::new(fx, fy), center, width, height, radial, tangential })
}

/// The pose from `transform_matrix` (camera to world, OpenGL axes), 4×4 or 3×4. A common scale of the
/// axes is taken out.
fn pose(frame: &Map<String, Value>) -> Result<Pose, Wrong> {
    const HINT: &str = "`transform_matrix` is camera-to-world: a rotation and a position";
    let rows = frame.get("transform_matrix").and_then(Value::as_array);
    let rows = rows.ok_or_else(|| ("has no `transform_matrix`".to_owned(), HINT))?;
    if !(3..=4).contains(&rows.len()) {
        return Err((format!("`transform_matrix` has {} rows", rows.len()), HINT));
    }
    let mut m = [[0.0; 4]; 3];
    for (row, out) in rows.iter().zip(&mut m) {
        let row = row.as_array().filter(|r| r.len() == 4);
        let row = row.ok_or_else(|| ("a row of `transform_matrix` has not 4 numbers".to_owned(), HINT))?;
        for (value, out) in row.iter().zip(out) {
            let number = value.as_f64().filter(|x| x.is_finite() && x.abs() < 1e9);
            *out = number.ok_or_else(|| {
                (format!("`transform_matrix` holds {value}"), "leave frames without a pose out")
            })?;
        }
    }
    let column = |c: usize| DVec3::new(m[0][c], m[1][c], m[2][c]);
    let axes = DMat3::from_cols(column(0), column(1), column(2));
    let rotation = orthonormal(axes).ok_or_else(|| ("its rotation is none".to_owned(), HINT))?;
    Ok(Pose { rotation, position: column(3) })
}

/// The rotation in `axes`, which may be scaled as a whole; `None` if they are skew or mirrored.
fn orthonormal(axes: DMat3) -> Option<DMat3> {
    let scale = axes.determinant().cbrt();
    if !(scale > 1e-6 && scale < 1e6) {
        return None;
    }
    let r = axes * (1.0 / scale);
    let error = r.transpose() * r - DMat3::IDENTITY;
    if error.to_cols_array().iter().any(|e| e.abs() > ORTHONORMAL) {
        return None;
    }
    // Newton's iteration for the polar decomposition: the nearest rotation, in double precision.
    let mut q = r;
    for _ in 0..8 {
        q = 0.5 * (q + q.inverse().transpose());
    }
    Some(q)
}
