//! The preview: eight views of the field in one picture, refreshed during the run.

use std::io::Cursor;
use std::path::PathBuf;

use glam::Vec3;
use image::{ImageFormat, Rgb, RgbImage};

use super::history::Due;
use super::refine::rig_of;
use super::{Job, picture, rig};
use crate::refine::{Refinement, Shot};
use crate::render::surface::SurfaceOutput;
use crate::render::volume::{Background, Mode, RenderOptions, RenderOutput, VolumeRenderer};
use crate::{Error, Result};

/// Views in the picture, and how many stand in a row.
const VIEWS: usize = 8;
const ROW: usize = 4;
/// Linear; a light neutral grey shows both dark and light assets.
const BACKGROUND: Vec3 = Vec3::splat(0.8);

/// Renders the field after `done` steps and replaces what is due of `preview.png` and `history.png`. The
/// renderer is left as the last step left it: a run with previews gives the bytes of a run without.
pub(super) fn write(job: &Job, renderer: &mut VolumeRenderer, done: u32, due: Due) -> Result<Vec<PathBuf>> {
    let step = done - 1;
    let cameras = rig::turntable(&job.config.camera, VIEWS as u32, job.config.output.preview_size);
    let options = RenderOptions { step, mode: Mode::Eval, normals: false };
    let output = renderer.render(&cameras, Background::Solid(&[BACKGROUND; VIEWS]), options)?;
    due.write(&job.folder, &tile(&output, ROW), &tile(&output, VIEWS))
}

/// The same of the second stage's surface.
pub(super) fn write_surface(job: &Job, surface: &mut Refinement, due: Due) -> Result<Vec<PathBuf>> {
    let cameras = rig::turntable(&rig_of(&job.config).camera, VIEWS as u32, job.config.output.preview_size);
    let shot = Shot { cameras: &cameras, backgrounds: &[BACKGROUND; VIEWS], normals: false, step: u32::MAX };
    let SurfaceOutput { views, width, height, rgb, .. } = surface.render(&shot)?;
    let output = RenderOutput { views, width, height, rgb, ..Default::default() };
    due.write(&job.folder, &tile(&output, ROW), &tile(&output, VIEWS))
}

/// A picture as PNG bytes.
pub(crate) fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(|e| Error::Failed(format!("png: {e}")))?;
    Ok(bytes.into_inner())
}

/// The views row by row, `row` of them in each.
fn tile(output: &RenderOutput, row: usize) -> RgbImage {
    let (w, h) = (output.width, output.height);
    let rows = output.views.div_ceil(row);
    RgbImage::from_fn((row * w) as u32, (rows * h) as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let view = y / h * row + x / w;
        let at = ((view * h + y % h) * w + x % w) * 3;
        let value = |c: usize| output.rgb.get(at + c).map_or(255, |v| picture::to_srgb8(*v));
        Rgb([value(0), value(1), value(2)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_tiled_row_by_row() {
        // Six 1x2 views; view i is grey i/10 in its upper pixel, black below.
        let rgb = (0..6).flat_map(|i| [i as f32 / 10.0; 3].into_iter().chain([0.0; 3])).collect();
        let output = RenderOutput { views: 6, width: 1, height: 2, rgb, ..RenderOutput::default() };
        let sheet = tile(&output, 4);
        assert_eq!(sheet.dimensions(), (4, 4));
        assert_eq!(sheet.get_pixel(3, 0)[0], picture::to_srgb8(0.3));
        assert_eq!(sheet.get_pixel(1, 2)[0], picture::to_srgb8(0.5));
        assert_eq!(sheet.get_pixel(1, 3)[0], 0);
        assert_eq!(sheet.get_pixel(2, 2)[0], 255, "no seventh view");
        assert_eq!(&png(&sheet).unwrap()[1..4], b"PNG");
        assert_eq!(tile(&output, 8).dimensions(), (8, 2));
    }
}
