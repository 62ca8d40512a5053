//! Pictures that steer a painting (`ControlNet`).

use std::path::Path;

use image::RgbImage;
use imageproc::edges::canny;

use super::tensor;
use crate::prior::Prior;
use crate::prior::control::ControlNet;
use crate::prior::files::Folder;
use crate::sample::Control;
use crate::{Error, Result};

/// Gradient strengths of [`edges`], of at most 1,140 for 8-bit pictures after the detector's blur; low
/// enough for the soft contrasts of painted and rendered pictures. Below the first nothing is an edge, above the second everything is,
/// and what lies between if it touches an edge.
pub const CANNY: (f32, f32) = (25.0, 60.0);

/// White edges on black (Canny 1986), the picture ControlNets for edges are trained on.
pub fn edges(picture: &RgbImage) -> RgbImage {
    let grey = image::imageops::grayscale(picture);
    let found = canny(&grey, CANNY.0, CANNY.1);
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let v = found.get_pixel(x, y).0[0];
        image::Rgb([v, v, v])
    })
}

/// Loads a `ControlNet` from a folder with its config and weights (or whose `controlnet/` has them).
///
/// # Errors
/// If it is missing, damaged, or made for another prior.
pub fn network(dir: &Path, prior: &Prior) -> Result<ControlNet> {
    if !dir.is_dir() {
        return Err(Error::invalid("--controlnet", format!("no folder {}", dir.display()))
            .hint("give a folder with config.json and diffusion_pytorch_model.safetensors"));
    }
    let part = if dir.join("controlnet/config.json").is_file() { "controlnet" } else { "." };
    let folder = Folder::Disk(dir.into());
    let net = crate::prior::network(&folder, part, &prior.device, ControlNet::new)?;
    let (c, u) = (&net.config.unet, &prior.unet.config);
    let fits = c.block_out_channels == u.block_out_channels
        && c.cross_attention_dim == u.cross_attention_dim
        && [prior.vae.latent_channels(), u.in_channels].contains(&c.in_channels);
    if !fits {
        return Err(Error::file(dir, "does not fit the prior").hint("it was made for another model"));
    }
    Ok(net)
}

/// [`network`] with its picture, for pictures of `size` (width, height).
///
/// # Errors
/// As [`network`].
pub fn load(
    dir: &Path,
    prior: &Prior,
    picture: &RgbImage,
    size: (u32, u32),
    scale: f64,
    guess: bool,
) -> Result<Control> {
    let net = network(dir, prior)?;
    let picture = tensor(picture, size, &prior.device)?.affine(0.5, 0.5)?.clamp(0f32, 1f32)?;
    Ok(Control { net, picture, scale, guess })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_where_the_picture_changes() {
        let picture = RgbImage::from_fn(40, 30, |x, _| image::Rgb([if x < 20 { 30 } else { 200 }; 3]));
        let found = edges(&picture);
        for x in 0..40u32 {
            let white = (5..25).all(|y| found.get_pixel(x, y).0 == [255; 3]);
            let black = (5..25).all(|y| found.get_pixel(x, y).0 == [0; 3]);
            assert!(white || black, "column {x}");
            assert!(black || (17..=22).contains(&x), "column {x}");
        }
        assert!((17..=22).any(|x| found.get_pixel(x, 15).0 == [255; 3]));
        let flat = edges(&RgbImage::from_pixel(8, 8, image::Rgb([9, 9, 9])));
        assert!(flat.pixels().all(|p| p.0 == [0; 3]));
    }
}
