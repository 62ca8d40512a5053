//! A small mesh taken through all kernels of the surface renderer, as [`super::chain`] does with a field.

use glam::Vec3;

use super::chain::{Variant, noise};
use super::{Lab, Row};
use crate::gpu::backend::Device;
use crate::gpu::kernels::{Kernel as K, NO_VERTEX, SURFACE_TILE, ScanParams, SurfaceParams, TextureParams};
use crate::render::camera::Camera;
use crate::render::surface::{Topology, projection};

const LOOSE: usize = 40;
const TEXTURE: [u32; 2] = [32, 16];

/// Whether a kernel belongs to the surface renderer.
pub(super) fn owns(kernel: K) -> bool {
    kernel as usize >= K::SurfaceTransform as usize
}

/// Runs every kernel (or `only` one) on `gpu` and on the processor.
pub(super) fn run(gpu: &Device, variant: Variant, only: Option<K>) -> Vec<Row> {
    let (positions, triangles) = mesh();
    let params = SurfaceParams {
        views: 2,
        vertices: positions.len() as u32 / 3,
        triangles: triangles.len() as u32,
        width: 45,
        height: 37,
        tiles_x: 45u32.div_ceil(SURFACE_TILE),
        tiles_y: 37u32.div_ceil(SURFACE_TILE),
        cull: u32::from(variant.jitter),
        near: 0.5,
        peel: 0,
        channels: 3,
        pad: 0,
    };
    let mut chain = Chain { lab: Lab::new(gpu, only), variant, params };
    chain.raster(positions, &triangles);
    chain.attributes(&triangles);
    chain.silhouettes();
    chain.texture();
    chain.backward();
    chain.lab.rows
}

/// A dented cube and loose triangles of all sizes around it, some through the near plane.
fn mesh() -> (Vec<f32>, Vec<[u32; 3]>) {
    let dents = noise(40, 24, 0.15);
    let corner = |i: usize| if ((i / 3) >> (i % 3)) & 1 == 1 { 0.5 } else { -0.5 };
    let mut positions: Vec<f32> = (0..24).map(|i| corner(i) + dents[i]).collect();
    let (centers, corners) = (noise(41, 3 * LOOSE, 1.0), noise(42, 9 * LOOSE, 1.0));
    positions.extend((0..9 * LOOSE).map(|i| {
        let size = [0.02, 0.1, 0.4, 4.0][i / 9 % 4];
        centers[3 * (i / 9) + i % 3] + corners[i] * size
    }));
    let quads: [[u32; 4]; 6] =
        [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];
    let cube = quads.into_iter().flat_map(|[a, b, c, d]| [[a, b, c], [a, c, d]]);
    let loose = (0..LOOSE as u32).map(|t| [0, 1, 2].map(|k| 8 + 3 * t + k));
    (positions, cube.chain(loose).collect())
}

struct Chain<'a> {
    lab: Lab<'a>,
    variant: Variant,
    params: SurfaceParams,
}

impl Chain<'_> {
    fn pixels(&self) -> usize {
        (self.params.views * self.params.width * self.params.height) as usize
    }

    fn run(&mut self, kernel: K, items: usize) {
        let params = self.params;
        self.lab.run(kernel, bytemuck::bytes_of(&params), items);
    }

    fn each_pixel(&mut self, kernel: K) {
        let pixels = self.pixels();
        self.run(kernel, pixels);
    }

    fn copy(&mut self, source: &str, name: &'static str) {
        let words = self.lab.words[source].clone();
        self.lab.words.insert(name, words);
    }

    fn raster(&mut self, positions: Vec<f32>, triangles: &[[u32; 3]]) {
        let (p, pixels) = (self.params, self.pixels());
        let views = [(30.0, 20.0, 2.6), (200.0, -35.0, 1.4)];
        let cameras = views.map(|(azimuth, elevation, distance)| {
            let mut camera = Camera::orbit(azimuth, elevation, distance, Vec3::ZERO, 0.9, p.height);
            camera.width = p.width;
            camera
        });
        self.lab.set("projections", cameras.iter().flat_map(projection).collect());
        self.lab.set("positions", positions);
        self.lab.words.insert("indices", triangles.as_flattened().to_vec());
        let opposite =
            Topology::new(p.vertices as usize, triangles).unwrap().opposite().as_flattened().to_vec();
        assert!(opposite.contains(&NO_VERTEX) && opposite.iter().any(|v| *v < 8));
        self.lab.words.insert("opposite", opposite);
        self.lab.poison("clip", 3 * (p.views * p.vertices) as usize);
        self.run(K::SurfaceTransform, (p.views * p.vertices) as usize);
        let tiles = (p.views * p.tiles_x * p.tiles_y) as usize;
        self.lab.words.insert("counts", vec![0; tiles]);
        self.run(K::SurfaceTileCount, (p.views * p.triangles) as usize);
        self.lab.poison("offsets", tiles + 1);
        let scan = ScanParams { n: tiles as u32, pad: [0; 3] };
        self.lab.run(K::Scan, bytemuck::bytes_of(&scan), 1);
        let entries = self.lab.words["offsets"][tiles] as usize;
        assert!(entries > 10 * tiles, "{entries} entries in {tiles} tiles");
        self.lab.words.insert("cursors", vec![0; tiles]);
        self.lab.poison("list", entries);
        self.run(K::SurfaceTileWrite, (p.views * p.triangles) as usize);
        self.lab.words.insert("front_ids", vec![0; 1]);
        self.lab.set("front_raster", vec![0.0; 4]);
        self.lab.poison("ids", pixels);
        self.lab.poison("raster", 4 * pixels);
        self.each_pixel(K::SurfaceRasterize);
        self.copy("ids", "front_ids");
        self.copy("raster", "front_raster");
        self.params.peel = 1;
        self.each_pixel(K::SurfaceRasterize);
        let seen = |words: &[u32]| words[..pixels].iter().filter(|id| **id != 0).count();
        let (front, behind) = (seen(&self.lab.words["front_ids"]), seen(&self.lab.words["ids"]));
        assert!(front > behind && behind > 100 && front < pixels, "{front} {behind}");
        self.copy("front_ids", "ids");
        self.copy("front_raster", "raster");
    }

    fn attributes(&mut self, triangles: &[[u32; 3]]) {
        let pixels = self.pixels();
        let rows = self.params.vertices as usize;
        self.lab.words.insert("attribute_indices", triangles.as_flattened().to_vec());
        self.lab.words.insert("uv_indices", triangles.as_flattened().to_vec());
        self.lab.set("uvs", noise(43, 2 * rows, 1.5));
        self.copy("uvs", "attributes");
        self.params.channels = 2;
        self.lab.poison("values", 2 * pixels);
        self.each_pixel(K::SurfaceInterpolate);
        // Without the words beyond: the texture kernels read whole pairs.
        let uv = self.lab.words["values"][..2 * pixels].to_vec();
        self.lab.words.insert("uv", uv);
        self.lab.poison("footprint", 4 * pixels);
        self.each_pixel(K::SurfaceFootprint);
        self.params.channels = 3;
        self.lab.set("attributes", noise(44, 3 * rows, 1.0));
        self.lab.poison("values", 3 * pixels);
        self.each_pixel(K::SurfaceInterpolate);
        self.lab.set("background", noise(45, 6, 1.0));
        self.lab.poison("layers", 4 * pixels);
        self.each_pixel(K::SurfaceCompose);
    }

    fn silhouettes(&mut self) {
        let pixels = self.pixels();
        self.lab.poison("alphas", 2 * pixels);
        self.lab.poison("edges", 2 * pixels);
        self.each_pixel(K::SilhouettePairs);
        let alphas = &self.lab.floats("alphas")[..2 * pixels];
        assert!(
            alphas.iter().filter(|a| **a > 0.0).count() > 50
                && alphas.iter().filter(|a| **a < 0.0).count() > 50
        );
        self.params.channels = 4;
        self.lab.poison("blended", 4 * pixels);
        self.each_pixel(K::SilhouetteBlend);
    }

    fn texture(&mut self) {
        let pixels = self.pixels();
        let mut params = TextureParams {
            pixels: pixels as u32,
            channels: 3,
            width: TEXTURE[0],
            height: TEXTURE[1],
            levels: 5,
            sampling: 2,
            wrap: if self.variant.jitter { 2 } else { 0 },
            level: 0,
        };
        let size = |level: u32| ((TEXTURE[0] >> level) * (TEXTURE[1] >> level)) as usize;
        let words = 3 * (0..5).map(size).sum::<usize>();
        let mut texels = noise(46, 3 * size(0), 1.0);
        texels.resize(words, 0.0);
        self.lab.set("texels", texels);
        for level in 1..5 {
            params.level = level;
            self.lab.run(K::TextureMip, bytemuck::bytes_of(&params), size(level));
        }
        self.lab.set("sampled_grad", noise(47, 3 * pixels, 1.0));
        self.lab.set("texels_grad", noise(48, words, 0.1));
        for (sampling, wrap) in [(params.sampling, params.wrap), (1, 1), (0, 1)] {
            let params = TextureParams { sampling, wrap, ..params };
            let bytes = bytemuck::bytes_of(&params);
            self.lab.poison("sampled", 3 * pixels);
            self.lab.run(K::TextureSample, bytes, pixels);
            self.lab.poison("uv_grad", 2 * pixels);
            // Pairs of words: the poison behind must be whole pairs too.
            self.lab.words.get_mut("uv_grad").expect("just set").truncate(2 * pixels);
            self.lab.run(K::TextureSampleBackward, bytes, pixels);
        }
        for level in (1..5).rev() {
            params.level = level;
            self.lab.run(K::TextureMipBackward, bytemuck::bytes_of(&params), size(level - 1));
        }
    }

    fn backward(&mut self) {
        let (pixels, p) = (self.pixels(), self.params);
        self.lab.set("blended_grad", noise(49, 4 * pixels, 1.0));
        self.lab.set("clip_grad", noise(50, 3 * (p.views * p.vertices) as usize, 0.01));
        self.each_pixel(K::SilhouetteMoveBackward);
        self.lab.poison("layers_grad", 4 * pixels);
        self.each_pixel(K::SilhouetteBlendBackward);
        self.params.channels = 3;
        self.lab.poison("values_grad", 3 * pixels);
        self.each_pixel(K::SurfaceComposeBackward);
        self.lab.set("attributes_grad", noise(51, 3 * p.vertices as usize, 0.1));
        self.lab.set("raster_grad", noise(52, 4 * pixels, 0.1));
        self.each_pixel(K::SurfaceInterpolateBackward);
        self.each_pixel(K::SurfaceRasterizeBackward);
        self.lab.set("positions_grad", noise(53, 3 * p.vertices as usize, 0.1));
        self.run(K::SurfaceTransformBackward, p.vertices as usize);
    }
}
