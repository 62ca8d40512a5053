//! What the surface renderer takes and gives.

use glam::Vec3;

use crate::gpu::kernels::TextureParams;
use crate::render::camera::Camera;
use crate::{Error, Result};

/// How a texture is read between its texels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Sampling {
    /// The nearest texel; no gradient by coordinates.
    Nearest = 0,
    /// Bilinear in the full picture.
    Bilinear = 1,
    /// Bilinear in the two fitting levels of the pyramid.
    #[default]
    Trilinear = 2,
}

/// What lies beyond a texture's border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Wrap {
    /// The texture again.
    Repeat = 0,
    /// Its border.
    #[default]
    Clamp = 1,
    /// The texture, mirrored.
    Mirror = 2,
}

/// A picture of linear colours; row 0 is at v = 0.
#[derive(Debug, Clone, Copy)]
pub struct Texture<'a> {
    /// `[height, width, 3]`.
    pub texels: &'a [f32],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Texture<'_> {
    pub(super) fn params(&self, pixels: usize, options: &SurfaceOptions) -> Result<TextureParams> {
        let (width, height) = (self.width, self.height);
        if width == 0 || height == 0 || width.max(height) > 1 << 14 {
            return Err(Error::invalid("texture", format!("{width}×{height} texels; 1 to 16384 a side")));
        }
        if self.texels.len() != 3 * width * height {
            let reason = format!("{} numbers for {width}×{height} texels of three", self.texels.len());
            return Err(Error::invalid("texture", reason));
        }
        Ok(TextureParams {
            pixels: pixels as u32,
            channels: 3,
            width: width as u32,
            height: height as u32,
            levels: if options.sampling == Sampling::Trilinear { levels(width, height) } else { 1 },
            sampling: options.sampling as u32,
            wrap: options.wrap as u32,
            level: 0,
        })
    }
}

/// Levels of a texture's pyramid: a side is halved until it is 1, all stop where one is odd.
pub(super) fn levels(mut width: usize, mut height: usize) -> u32 {
    let mut levels = 1;
    let halves = |side: usize| side == 1 || side.is_multiple_of(2);
    while width.max(height) > 1 && halves(width) && halves(height) {
        (width, height, levels) = ((width / 2).max(1), (height / 2).max(1), levels + 1);
    }
    levels
}

/// Where colours come from.
#[derive(Debug, Clone, Copy)]
pub enum Paint<'a> {
    /// Linear colours `[attributes, 3]`.
    Colors(&'a [f32]),
    /// Texture coordinates `[attributes, 2]` and the texture.
    Texture(&'a [f32], Texture<'a>),
}

/// One render.
#[derive(Debug, Clone, Copy)]
pub struct SurfaceInput<'a> {
    /// `[vertices, 3]` in world space. A triangle with a corner that is not finite is not drawn.
    pub positions: &'a [f32],
    /// The surface's colour.
    pub paint: Paint<'a>,
    /// One picture each; all of one size.
    pub cameras: &'a [Camera],
    /// Linear colour behind the surface, one a camera.
    pub backgrounds: &'a [Vec3],
}

/// Settings of a render.
#[derive(Debug, Clone, Copy)]
pub struct SurfaceOptions {
    /// Surfaces nearer along the viewing axis are not seen.
    pub near: f32,
    /// Leaves out triangles that turn clockwise as seen.
    pub cull_back_faces: bool,
    /// Surfaces in front of the one that is drawn (depth peeling); 0 draws the nearest.
    pub layer: u32,
    /// Also smooth normals.
    pub normals: bool,
    /// How textures are read.
    pub sampling: Sampling,
    /// What lies beyond their borders.
    pub wrap: Wrap,
}

impl Default for SurfaceOptions {
    fn default() -> Self {
        Self {
            near: 0.01,
            cull_back_faces: false,
            layer: 0,
            normals: false,
            sampling: Sampling::default(),
            wrap: Wrap::default(),
        }
    }
}

/// Pictures, `[views, height, width, …]`, row 0 on top.
#[derive(Debug, Clone, Default)]
pub struct SurfaceOutput {
    /// Pictures.
    pub views: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Linear colour over the background, three channels, silhouettes antialiased.
    pub rgb: Vec<f32>,
    /// Coverage 0 … 1, antialiased.
    pub mask: Vec<f32>,
    /// Distance along the viewing axis at the pixel's centre, 0 where nothing is seen; not blended.
    pub depth: Vec<f32>,
    /// Interpolated world normals of the vertices, blended towards zero at silhouettes; not unit.
    pub normal: Option<Vec<f32>>,
    /// Triangle + 1 at the pixel's centre, or 0.
    pub ids: Vec<u32>,
}

/// Gradient of a loss by the pictures, in the shapes of [`SurfaceOutput`].
#[derive(Debug, Clone, Copy, Default)]
pub struct SurfaceGrad<'a> {
    /// By `rgb`.
    pub rgb: Option<&'a [f32]>,
    /// By `mask`.
    pub mask: Option<&'a [f32]>,
    /// By `depth`.
    pub depth: Option<&'a [f32]>,
    /// By `normal`.
    pub normal: Option<&'a [f32]>,
}

/// Gradient of a loss by what was drawn.
#[derive(Debug, Clone, Default)]
pub struct SurfaceGradients {
    /// `[vertices, 3]`.
    pub positions: Vec<f32>,
    /// By the colours `[attributes, 3]` or the texture coordinates `[attributes, 2]`.
    pub attributes: Vec<f32>,
    /// By the texels `[height, width, 3]`; empty without a texture.
    pub texels: Vec<f32>,
}
