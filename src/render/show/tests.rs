//! Pictures of simple things, whose every pixel is known.

use std::sync::Arc;

use glam::{DVec3, Vec2, Vec3};
use image::{Rgba, RgbaImage};

use super::*;
use crate::asset::{Maps, Material, Mesh};
use crate::render::material::Studio;

/// A square of side 2 that faces +Z.
fn square(material: Material) -> Asset {
    let corners = [(-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (1.0, 1.0)];
    let mesh = Mesh {
        positions: corners.map(|(x, y)| Vec3::new(x, y, 0.0)).to_vec(),
        normals: vec![Vec3::Z; 4],
        uvs: [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0)].map(|(u, v)| Vec2::new(u, v)).to_vec(),
        triangles: vec![[0, 1, 2], [0, 2, 3]],
        ..Mesh::default()
    };
    Asset { meshes: vec![mesh], materials: vec![material], ..Asset::default() }
}

fn style(view: View) -> Style {
    let light = Illumination::Environment(Studio::White.environment(), 0.0);
    Style { view, light, exposure: 1.0, tone: Tone::None, background: None, samples: 2 }
}

const LENS: Lens = Lens { width: 48, height: 32, fov: 40.0 };

fn front() -> Camera {
    LENS.camera(&Eye { azimuth: 0.0, elevation: 0.0, distance: None })
}

/// The middle pixel's colour, as light.
fn middle(asset: &Asset, style: &Style) -> Vec3 {
    let frame = Show::new(asset).frame(&front(), style);
    frame.rgb[(16 * 48 + 24) as usize]
}

#[test]
fn each_view_shows_its_property() {
    let red = Material { base_color: [0.7, 0.1, 0.2, 1.0], ..Material::default() };
    let asset = square(red);
    assert!((middle(&asset, &style(View::Albedo)) - Vec3::new(0.7, 0.1, 0.2)).length() < 1e-6);
    // It faces the camera: (0, 0, 1) is (½, ½, 1).
    let normal = middle(&asset, &style(View::Normal)).to_array().map(linear_to_srgb8);
    assert_eq!(normal.map(|c| c.abs_diff(127) <= 1), [true, true, false]);
    assert_eq!(normal[2], 255);
    // The middle of the sphere is middle grey.
    let depth = linear_to_srgb8(middle(&asset, &style(View::Depth)).x);
    assert!(depth.abs_diff(127) <= 1, "{depth}");
    let uv = middle(&asset, &style(View::Uv)).to_array().map(linear_to_srgb8);
    assert!(uv[0] > 70 && uv[0] < 135, "{uv:?}");
    let wire = Show::new(&asset).frame(&front(), &style(View::Wireframe));
    // The diagonal goes through the middle.
    assert!(wire.rgb[16 * 48 + 24].x < wire.rgb[12 * 48 + 26].x);
}

#[test]
fn a_white_square_in_white_light_is_white_and_outside_it_is_transparent() {
    let white = Material { roughness: 0.5, ..Material::default() };
    let asset = square(white);
    let color = middle(&asset, &style(View::Shaded));
    assert!((color - Vec3::ONE).length() < 1e-5, "{color}");
    let picture = Show::new(&asset).picture(&front(), &style(View::Shaded));
    assert_eq!((picture.dimensions(), picture.get_pixel(0, 0).0[3]), ((48, 32), 0));
    assert_eq!(picture.get_pixel(24, 16).0, [255; 4]);
    // Straight alpha: at the border, too, the colour is white.
    assert!(picture.pixels().all(|p| p.0[3] == 0 || p.0[0] > 250));
}

#[test]
fn the_maps_are_read() {
    let picture = |pixel| Arc::new(RgbaImage::from_pixel(4, 4, Rgba(pixel)));
    let maps = Maps {
        metallic_roughness: Some(picture([0, 128, 255, 255])),
        normal: Some((picture([255, 128, 128, 255]), 1.0)),
        occlusion: Some(picture([128, 0, 0, 255])),
        emissive: Some(picture([0, 255, 0, 255])),
    };
    let plain = Material { metallic: 1.0, roughness: 1.0, ..Material::default() };
    let asset = square(Material { maps, emissive: [0.0, 0.25, 0.0], ..plain.clone() });
    // The normal map turns normals to +X (u grows to the right).
    let normal = middle(&asset, &style(View::Normal)).to_array().map(linear_to_srgb8);
    assert!(normal[0] > 250 && normal[2].abs_diff(128) < 4, "{normal:?}");
    // White metal in white light is white whatever its normal; half of it is occluded, and it glows green.
    let shown = middle(&asset, &style(View::Shaded));
    assert!((shown - Vec3::new(0.502, 0.752, 0.502)).length() < 2e-3, "{shown}");
    // The metalness comes from the map: without it the base colour is diffuse and keeps its hue.
    let night = Style {
        light: Illumination::Environment(
            Arc::new(Environment::new(|d| DVec3::splat(f64::from(u8::from(d.z > 0.9))))),
            0.0,
        ),
        ..style(View::Shaded)
    };
    let smooth = Maps { metallic_roughness: Some(picture([0, 0, 255, 255])), ..Maps::default() };
    let rough = middle(&square(plain.clone()), &night);
    let mirror = middle(&square(Material { maps: smooth, ..plain }), &night);
    assert!(mirror.x > 0.95 && rough.x < 0.6, "{mirror} {rough}");
}

#[test]
fn wide_and_tall_pictures_hold_the_whole_model() {
    let ball = square(Material::default());
    for (width, height) in [(96, 32), (32, 96), (64, 64)] {
        let lens = Lens { width, height, fov: 50.0 };
        for azimuth in [0.0, 45.0] {
            let camera = lens.camera(&Eye { azimuth, elevation: 10.0, distance: None });
            let picture = Show::new(&ball).picture(&camera, &style(View::Albedo));
            let border = picture
                .enumerate_pixels()
                .filter(|(x, y, _)| *x == 0 || *y == 0 || *x == width - 1 || *y == height - 1);
            assert!(border.into_iter().all(|(_, _, p)| p.0[3] == 0), "{width}x{height}");
            assert!(picture.pixels().filter(|p| p.0[3] == 255).count() > 60);
        }
    }
}

#[test]
fn the_frame_does_not_depend_on_threads() {
    let asset = square(Material { metallic: 0.5, roughness: 0.3, ..Material::default() });
    let show = Show::new(&asset);
    let light = Illumination::Environment(Studio::Softboxes.environment(), 0.3);
    let style = Style { light, ..style(View::Shaded) };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| show.picture(&front(), &style))
    };
    assert_eq!(on(1), on(3));
}
