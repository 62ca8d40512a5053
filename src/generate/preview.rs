//! The preview: eight views of the field in one picture, refreshed during the run.

use std::io::Cursor;
use std::path::PathBuf;

use glam::Vec3;
use image::{ImageFormat, Rgb, RgbImage};

use super::refine::rig_of;
use super::{Job, picture, rig};
use crate::refine::{Refinement, Shot};
use crate::render::surface::SurfaceOutput;
use crate::render::volume::{Background, Mode, RenderOptions, RenderOutput, VolumeRenderer};
use crate::{Error, Result, asset};

/// Views in the picture, and how many stand in a row.
const VIEWS: usize = 8;
const ROW: usize = 4;
/// Linear; a light neutral grey shows both dark and light assets.
const BACKGROUND: Vec3 = Vec3::splat(0.8);

/// Renders the field as `step` left it and replaces `preview.png`. The renderer is left as that step
/// left it, too: a run with previews gives the bytes of a run without.
pub(super) fn write(job: &Job, renderer: &mut VolumeRenderer, step: u32) -> Result<PathBuf> {
    let cameras = rig::turntable(&job.config.camera, VIEWS as u32, job.config.output.preview_size);
    let options = RenderOptions { step, mode: Mode::Eval, normals: false };
    let output = renderer.render(&cameras, Background::Solid(&[BACKGROUND; VIEWS]), options)?;
    let path = job.folder.file("preview.png");
    asset::replace(&path, &png(&tile(&output))?)?;
    Ok(path)
}

/// The same of the second stage's surface.
pub(super) fn write_surface(job: &Job, surface: &mut Refinement) -> Result<PathBuf> {
    let cameras = rig::turntable(&rig_of(&job.config).camera, VIEWS as u32, job.config.output.preview_size);
    let shot = Shot { cameras: &cameras, backgrounds: &[BACKGROUND; VIEWS], normals: false, step: u32::MAX };
    let SurfaceOutput { views, width, height, rgb, .. } = surface.render(&shot)?;
    let path = job.folder.file("preview.png");
    asset::replace(&path, &png(&tile(&RenderOutput { views, width, height, rgb, ..Default::default() }))?)?;
    Ok(path)
}

/// A picture as PNG bytes.
pub(crate) fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(|e| Error::Failed(format!("png: {e}")))?;
    Ok(bytes.into_inner())
}

/// The views row by row.
fn tile(output: &RenderOutput) -> RgbImage {
    let (w, h) = (output.width, output.height);
    let rows = output.views.div_ceil(ROW);
    RgbImage::from_fn((ROW * w) as u32, (rows * h) as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let view = y / h * ROW + x / w;
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
        let sheet = tile(&output);
        assert_eq!(sheet.dimensions(), (4, 4));
        assert_eq!(sheet.get_pixel(3, 0)[0], picture::to_srgb8(0.3));
        assert_eq!(sheet.get_pixel(1, 2)[0], picture::to_srgb8(0.5));
        assert_eq!(sheet.get_pixel(1, 3)[0], 0);
        assert_eq!(sheet.get_pixel(2, 2)[0], 255, "no seventh view");
        assert_eq!(&png(&sheet).unwrap()[1..4], b"PNG");
    }
}
