//! The renderer's object and its forward pass.

use glam::Vec3;

use super::input::{Paint, SurfaceInput, SurfaceOptions, SurfaceOutput};
use super::normals::vertex_normals;
use super::projection::projection;
use super::shade::Shade;
use super::topology::Topology;
use crate::gpu::backend::{Buffer, Device};
use crate::gpu::kernels::{Kernel, RASTER, SURFACE_TILE, ScanParams, SurfaceParams, TextureParams};
use crate::render::volume::buffers::{Pool, read_f32};
use crate::{Error, Result};

/// Channels of a layer: three of a colour or normal, and coverage.
pub(super) const LAYER: usize = 4;

/// A mesh's connections on a device, and the pass that `backward` goes back through.
///
/// [`render`](Self::render), then [`backward`](Self::backward) with the loss's gradient by the pictures.
pub struct SurfaceRenderer {
    pub(super) device: Device,
    pub(super) topology: Topology,
    pub(super) indices: Buffer,
    pub(super) attribute_indices: Buffer,
    opposite: Buffer,
    pub(super) pool: Pool,
    pub(super) pass: Option<Pass>,
}

/// What the backward pass needs of a forward pass.
pub(super) struct Pass {
    pub(super) params: SurfaceParams,
    pub(super) positions: Vec<f32>,
    pub(super) projections: Buffer,
    pub(super) clip: Buffer,
    pub(super) ids: Buffer,
    pub(super) raster: Buffer,
    pub(super) attributes: Buffer,
    pub(super) texture: Option<TexturePass>,
    pub(super) alphas: Buffer,
    pub(super) edges: Buffer,
    pub(super) colors: Buffer,
    pub(super) normals: Option<NormalPass>,
}

/// What the backward pass needs of a texture.
pub(super) struct TexturePass {
    pub(super) params: TextureParams,
    pub(super) words: usize,
    pub(super) texels: Buffer,
    pub(super) uv: Buffer,
    pub(super) footprint: Buffer,
}

/// What the backward pass needs of the normals.
pub(super) struct NormalPass {
    pub(super) attributes: Buffer,
    pub(super) layers: Buffer,
}

impl SurfaceRenderer {
    /// A renderer of meshes with these connections.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn new(device: &Device, topology: &Topology) -> Result<Self> {
        let upload = |label: &str, rows: &[[u32; 3]]| -> Result<Buffer> {
            let buffer = device.create(label, 3 * rows.len())?;
            device.write(&buffer, rows.as_flattened())?;
            Ok(buffer)
        };
        Ok(Self {
            indices: upload("indices", &topology.triangles)?,
            attribute_indices: upload("attribute_indices", &topology.attribute_triangles)?,
            opposite: upload("opposite", &topology.opposite)?,
            device: device.clone(),
            topology: topology.clone(),
            pool: Pool::default(),
            pass: None,
        })
    }

    /// Takes a mesh with other connections, and keeps the work buffers.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn set_topology(&mut self, topology: Topology) -> Result<()> {
        let pool = std::mem::take(&mut self.pool);
        *self = Self { pool, ..Self::new(&self.device.clone(), &topology)? };
        Ok(())
    }

    /// The mesh's connections.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Bytes that a render and its backward pass take for pictures and vertices, before anything is
    /// allocated; lists of triangles by tile (usually about 8 bytes a triangle and view) and the
    /// texture come on top.
    pub fn memory(topology: &Topology, views: usize, width: usize, height: usize, normals: bool) -> u64 {
        // ids, raster, alphas, edges, values, layers and blended, with gradients; uv and footprint.
        let pixel = 1 + 2 * RASTER + 4 + 2 * 3 + 4 * LAYER + 8 + if normals { 3 + 3 * LAYER } else { 0 };
        let vertex = 2 * 3 * views + 12;
        4 * (views * width * height * pixel + topology.vertices.max(topology.attributes) * vertex) as u64
    }

    /// Draws the mesh from each camera.
    ///
    /// # Errors
    /// If lengths do not fit the topology, there is no camera, cameras differ in size, or the device
    /// fails or is too small.
    pub fn render(&mut self, input: &SurfaceInput<'_>, options: &SurfaceOptions) -> Result<SurfaceOutput> {
        self.draw(input, options, None)
    }

    pub(super) fn draw(
        &mut self,
        input: &SurfaceInput<'_>,
        options: &SurfaceOptions,
        shade: Option<&mut Shade<'_>>,
    ) -> Result<SurfaceOutput> {
        self.pass = None;
        let params = self.params(input, options)?;
        let pixels = (params.views * params.width * params.height) as usize;
        let (projections, clip) = self.transform(input, &params)?;
        let (ids, raster) = self.rasterize(&params, &clip, options.layer)?;
        let (attributes, texture, values) =
            self.paint(input.paint, options, &params, &clip, &ids, &raster)?;
        let values = match shade {
            Some(shade) => self.each_seen("shaded", pixels, &ids, &values, shade)?,
            None => values,
        };
        let backgrounds: Vec<f32> = input.backgrounds.iter().flat_map(|c| c.to_array()).collect();
        let colors = self.compose(&params, &ids, &values, &backgrounds, "layers")?;
        let (alphas, edges) = self.pairs(&params, &ids, &raster, &clip)?;
        let blended = self.blend(&params, &alphas, &colors)?;
        let mut output = SurfaceOutput {
            views: params.views as usize,
            width: params.width as usize,
            height: params.height as usize,
            ids: vec![0; pixels],
            ..Default::default()
        };
        self.device.read(&ids, 0, &mut output.ids)?;
        for [r, g, b, mask] in read_f32(&*self.device, &blended, LAYER * pixels)?.as_chunks::<LAYER>().0 {
            output.rgb.extend([r, g, b]);
            output.mask.push(*mask);
        }
        let raster_words = read_f32(&*self.device, &raster, RASTER * pixels)?;
        output.depth = raster_words.as_chunks::<RASTER>().0.iter().map(|r| r[3]).collect();
        let mut normals = None;
        if options.normals {
            let (pass, picture) = self.normals(input, &params, &ids, &raster, &alphas)?;
            normals = Some(pass);
            output.normal = Some(picture);
        }
        let positions = input.positions.to_vec();
        self.pass = Some(Pass {
            params,
            positions,
            projections,
            clip,
            ids,
            raster,
            attributes,
            texture,
            alphas,
            edges,
            colors,
            normals,
        });
        Ok(output)
    }

    fn params(&self, input: &SurfaceInput<'_>, options: &SurfaceOptions) -> Result<SurfaceParams> {
        let Some(first) = input.cameras.first() else {
            return Err(Error::invalid("cameras", "there are none"));
        };
        let (width, height) = (first.width, first.height);
        if width == 0 || height == 0 || width.max(height) > 1 << 14 {
            return Err(Error::invalid("cameras", format!("{width}×{height} pixels; 1 to 16384 a side")));
        }
        if input.cameras.iter().any(|c| (c.width, c.height) != (width, height)) {
            return Err(Error::invalid("cameras", "pictures of one render must have the same size"));
        }
        if input.backgrounds.len() != input.cameras.len() {
            let reason = format!("{} for {} cameras", input.backgrounds.len(), input.cameras.len());
            return Err(Error::invalid("backgrounds", reason));
        }
        if input.positions.len() != 3 * self.topology.vertices {
            let reason = format!("{} numbers for {} vertices", input.positions.len(), self.topology.vertices);
            return Err(Error::invalid("positions", reason));
        }
        if !(options.near > 0.0 && options.near.is_finite()) {
            return Err(Error::invalid("near", "must be above 0"));
        }
        let views = input.cameras.len();
        let largest = (views * (width * height) as usize * LAYER).max(3 * views * self.topology.vertices);
        if largest > self.device.max_words() {
            let reason = format!("{views} views of {width}×{height} need a buffer of {} MiB", largest >> 18);
            return Err(Error::invalid("cameras", reason).hint("render fewer views at once, or smaller ones"));
        }
        Ok(SurfaceParams {
            views: views as u32,
            vertices: self.topology.vertices as u32,
            triangles: self.topology.triangles.len() as u32,
            width,
            height,
            tiles_x: width.div_ceil(SURFACE_TILE),
            tiles_y: height.div_ceil(SURFACE_TILE),
            cull: u32::from(options.cull_back_faces),
            near: options.near,
            peel: 0,
            channels: 3,
            pad: 0,
        })
    }

    pub(super) fn upload(&mut self, name: &'static str, data: &[f32]) -> Result<Buffer> {
        let buffer = self.pool.get(&*self.device, name, data.len())?;
        self.device.write(&buffer, bytemuck::cast_slice(data))?;
        Ok(buffer)
    }

    pub(super) fn get(&mut self, name: &'static str, words: usize) -> Result<Buffer> {
        self.pool.get(&*self.device, name, words)
    }

    /// A buffer of zeros.
    pub(super) fn zeros(&mut self, name: &'static str, words: usize) -> Result<Buffer> {
        let buffer = self.get(name, words)?;
        self.device.clear(&buffer)?;
        Ok(buffer)
    }

    pub(super) fn run(
        &self,
        kernel: Kernel,
        params: &SurfaceParams,
        items: usize,
        bound: &[&Buffer],
    ) -> Result<()> {
        self.device.dispatch(kernel, bytemuck::bytes_of(params), items, bound)
    }

    fn transform(&mut self, input: &SurfaceInput<'_>, params: &SurfaceParams) -> Result<(Buffer, Buffer)> {
        let rows: Vec<f32> = input.cameras.iter().flat_map(projection).collect();
        let projections = self.upload("projections", &rows)?;
        let positions = self.upload("positions", input.positions)?;
        let items = (params.views * params.vertices) as usize;
        let clip = self.get("clip", 3 * items)?;
        self.run(Kernel::SurfaceTransform, params, items, &[&projections, &positions, &clip])?;
        Ok((projections, clip))
    }

    fn rasterize(&mut self, params: &SurfaceParams, clip: &Buffer, layer: u32) -> Result<(Buffer, Buffer)> {
        let tiles = (params.views * params.tiles_x * params.tiles_y) as usize;
        let items = params.views as usize * params.triangles as usize;
        let counts = self.zeros("counts", tiles)?;
        self.run(Kernel::SurfaceTileCount, params, items, &[&self.indices, clip, &counts])?;
        let entries = self.entries(&counts, tiles)?;
        let offsets = self.get("offsets", tiles + 1)?;
        let scan = ScanParams { n: tiles as u32, pad: [0; 3] };
        self.device.dispatch(Kernel::Scan, bytemuck::bytes_of(&scan), 1, &[&counts, &offsets])?;
        let (cursors, list) = (self.zeros("cursors", tiles)?, self.get("list", entries)?);
        let bound = [&self.indices, clip, &offsets, &cursors, &list];
        self.run(Kernel::SurfaceTileWrite, params, items, &bound)?;

        let pixels = (params.views * params.width * params.height) as usize;
        // Peeling goes to and fro between two pairs of buffers.
        let used = if layer > 0 { pixels } else { 1 };
        let mut own = (self.get("ids", pixels)?, self.get("raster", RASTER * pixels)?);
        let mut front = (self.get("front_ids", used)?, self.get("front_raster", RASTER * used)?);
        for depth in 0..=layer {
            if depth > 0 {
                std::mem::swap(&mut own, &mut front);
            }
            let params = SurfaceParams { peel: u32::from(depth > 0), ..*params };
            let bound = [&self.indices, clip, &offsets, &list, &front.0, &front.1, &own.0, &own.1];
            self.run(Kernel::SurfaceRasterize, &params, pixels, &bound)?;
        }
        Ok(own)
    }

    /// Entries of all tiles' lists.
    fn entries(&self, counts: &Buffer, tiles: usize) -> Result<usize> {
        let mut words = vec![0; tiles];
        self.device.read(counts, 0, &mut words)?;
        let total: u64 = words.iter().map(|&n| u64::from(n)).sum();
        if total > self.device.max_words().min(u32::MAX as usize) as u64 {
            let reason = format!("the lists of triangles by tile have {total} entries");
            return Err(Error::invalid("mesh", reason)
                .hint("render fewer views at once or smaller pictures, or simplify the mesh"));
        }
        Ok(total as usize)
    }

    fn interpolate(
        &mut self,
        params: &SurfaceParams,
        ids: &Buffer,
        raster: &Buffer,
        attributes: &Buffer,
        indices: &Buffer,
        (name, channels): (&'static str, u32),
    ) -> Result<Buffer> {
        let pixels = (params.views * params.width * params.height) as usize;
        let values = self.get(name, channels as usize * pixels)?;
        let params = SurfaceParams { channels, ..*params };
        let bound = [ids, raster, attributes, indices, &values];
        self.run(Kernel::SurfaceInterpolate, &params, pixels, &bound)?;
        Ok(values)
    }

    fn paint(
        &mut self,
        paint: Paint<'_>,
        options: &SurfaceOptions,
        params: &SurfaceParams,
        clip: &Buffer,
        ids: &Buffer,
        raster: &Buffer,
    ) -> Result<(Buffer, Option<TexturePass>, Buffer)> {
        let pixels = (params.views * params.width * params.height) as usize;
        let (data, channels) = match paint {
            Paint::Colors(colors) => (colors, 3),
            Paint::Texture(uvs, _) => (uvs, 2),
        };
        if data.len() != channels * self.topology.attributes {
            let reason =
                format!("{} numbers for {} rows of {channels}", data.len(), self.topology.attributes);
            return Err(Error::invalid("attributes", reason));
        }
        let attributes = self.upload("attributes", data)?;
        let indices = self.attribute_indices.clone();
        let name = if channels == 3 { "values" } else { "uv" };
        let values = self.interpolate(params, ids, raster, &attributes, &indices, (name, channels as u32))?;
        let Paint::Texture(_, texture) = paint else { return Ok((attributes, None, values)) };
        let footprint = self.get("footprint", 4 * pixels)?;
        let bound = [ids, &self.indices, clip, &attributes, &indices, &footprint];
        self.run(Kernel::SurfaceFootprint, params, pixels, &bound)?;
        let texture_params = texture.params(pixels, options)?;
        let (texels, words) = self.pyramid(texture.texels, &texture_params)?;
        let sampled = self.get("values", 3 * pixels)?;
        let bound = [ids, &values, &footprint, &texels, &sampled];
        self.device.dispatch(Kernel::TextureSample, bytemuck::bytes_of(&texture_params), pixels, &bound)?;
        let pass = TexturePass { params: texture_params, words, texels, uv: values, footprint };
        Ok((attributes, Some(pass), sampled))
    }

    /// The texture with its smaller copies, and their length in words.
    fn pyramid(&mut self, texels: &[f32], params: &TextureParams) -> Result<(Buffer, usize)> {
        let sizes: Vec<usize> = (0..params.levels).map(|l| level_texels(params, l)).collect();
        let words = 3 * sizes.iter().sum::<usize>();
        let buffer = self.get("texels", words)?;
        self.device.write(&buffer, bytemuck::cast_slice(texels))?;
        for level in 1..params.levels {
            let params = TextureParams { level, ..*params };
            let items = sizes[level as usize];
            self.device.dispatch(Kernel::TextureMip, bytemuck::bytes_of(&params), items, &[&buffer])?;
        }
        Ok((buffer, words))
    }

    fn compose(
        &mut self,
        params: &SurfaceParams,
        ids: &Buffer,
        values: &Buffer,
        backgrounds: &[f32],
        name: &'static str,
    ) -> Result<Buffer> {
        let pixels = (params.views * params.width * params.height) as usize;
        let background = self.upload("background", backgrounds)?;
        let layers = self.get(name, LAYER * pixels)?;
        self.run(Kernel::SurfaceCompose, params, pixels, &[ids, values, &background, &layers])?;
        Ok(layers)
    }

    fn pairs(
        &mut self,
        params: &SurfaceParams,
        ids: &Buffer,
        raster: &Buffer,
        clip: &Buffer,
    ) -> Result<(Buffer, Buffer)> {
        let pixels = (params.views * params.width * params.height) as usize;
        let (alphas, edges) = (self.get("alphas", 2 * pixels)?, self.get("edges", 2 * pixels)?);
        let bound = [ids, raster, &self.indices, &self.opposite, clip, &alphas, &edges];
        self.run(Kernel::SilhouettePairs, params, pixels, &bound)?;
        Ok((alphas, edges))
    }

    fn blend(&mut self, params: &SurfaceParams, alphas: &Buffer, layers: &Buffer) -> Result<Buffer> {
        let pixels = (params.views * params.width * params.height) as usize;
        let blended = self.get("blended", LAYER * pixels)?;
        let params = SurfaceParams { channels: LAYER as u32, ..*params };
        self.run(Kernel::SilhouetteBlend, &params, pixels, &[alphas, layers, &blended])?;
        Ok(blended)
    }

    fn normals(
        &mut self,
        input: &SurfaceInput<'_>,
        params: &SurfaceParams,
        ids: &Buffer,
        raster: &Buffer,
        alphas: &Buffer,
    ) -> Result<(NormalPass, Vec<f32>)> {
        let pixels = (params.views * params.width * params.height) as usize;
        let data = vertex_normals(input.positions, &self.topology.triangles);
        let attributes = self.upload("normals", &data)?;
        let indices = self.indices.clone();
        let values = self.interpolate(params, ids, raster, &attributes, &indices, ("values", 3))?;
        let nothing: Vec<f32> = input.cameras.iter().flat_map(|_| Vec3::ZERO.to_array()).collect();
        let layers = self.compose(params, ids, &values, &nothing, "normal_layers")?;
        let blended = self.blend(params, alphas, &layers)?;
        let words = read_f32(&*self.device, &blended, LAYER * pixels)?;
        let picture = words.as_chunks::<LAYER>().0.iter().flat_map(|l| [l[0], l[1], l[2]]).collect();
        Ok((NormalPass { attributes, layers }, picture))
    }
}

/// Texels of a level.
pub(super) fn level_texels(params: &TextureParams, level: u32) -> usize {
    (params.width >> level).max(1) as usize * (params.height >> level).max(1) as usize
}
