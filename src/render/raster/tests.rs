use std::f32::consts::{PI, TAU};
use std::sync::Arc;

use glam::{Mat3, Quat, Vec2};
use image::{Rgba, RgbaImage};

use super::*;
use crate::asset::{Material, Mesh};
use crate::rng::{Rng, Stream};

const FOV: f32 = 40.0 * PI / 180.0;

/// A matte material, so that light is Lambert's alone.
fn matte(color: [f32; 4]) -> Material {
    Material { base_color: color, roughness: 1.0, ..Material::default() }
}

fn one(mesh: Mesh, material: Material) -> Asset {
    Asset { meshes: vec![mesh], materials: vec![material], ..Asset::default() }
}

/// A square of half side `half` around `centre`, facing `normal`, with v downwards.
fn square(centre: Vec3, normal: Vec3, half: f32) -> Mesh {
    let up = if normal.y.abs() > 0.9 { Vec3::NEG_Z } else { Vec3::Y };
    let right = up.cross(normal).normalize();
    let up = normal.cross(right);
    let corners = [(-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (1.0, 1.0)];
    Mesh {
        positions: corners.iter().map(|(x, y)| centre + (right * *x + up * *y) * half).collect(),
        normals: vec![normal; 4],
        uvs: [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0)].map(|(u, v)| Vec2::new(u, v)).to_vec(),
        triangles: vec![[0, 1, 2], [0, 2, 3]],
        ..Mesh::default()
    }
}

fn sphere(radius: f32, segments: u32) -> Mesh {
    let mut mesh = Mesh::default();
    let rings = segments / 2;
    for i in 0..=rings {
        for j in 0..=segments {
            let (st, ct) = (PI * i as f32 / rings as f32).sin_cos();
            let (sp, cp) = (TAU * j as f32 / segments as f32).sin_cos();
            let normal = Vec3::new(st * sp, ct, st * cp);
            mesh.positions.push(normal * radius);
            mesh.normals.push(normal);
        }
    }
    let row = segments + 1;
    for i in 0..rings {
        for j in 0..segments {
            let a = i * row + j;
            mesh.triangles.extend([[a, a + row, a + row + 1], [a, a + row + 1, a + 1]]);
        }
    }
    mesh
}

fn camera(azimuth: f32, elevation: f32, size: u32) -> Camera {
    Camera::orbit(azimuth, elevation, 2.4, Vec3::ZERO, FOV, size)
}

fn draw(asset: &Asset, camera: &Camera) -> Frame {
    render(asset, camera, &Lighting::flat(), Vec3::ZERO, 4)
}

#[test]
fn planes_have_their_depth_and_normal_in_every_pixel() {
    let cam = camera(25.0, 15.0, 32);
    let forward = -cam.c2w.z_axis.truncate();
    // A wall behind the origin, and a floor that reaches past the camera, so that it is clipped.
    let cases = [(Vec3::new(0.1, 0.0, -0.3), Vec3::new(0.3, 0.2, 1.0)), (Vec3::new(0.0, -0.5, 0.0), Vec3::Y)];
    for (point, normal) in cases {
        let normal = normal.normalize();
        let frame = draw(&one(square(point, normal, 300.0), matte([1.0; 4])), &cam);
        let mut seen = 0;
        for y in 0..32 {
            for x in 0..32 {
                let ray = cam.direction(x as f32 + 0.5, y as f32 + 0.5);
                let t = (point - cam.origin()).dot(normal) / ray.dot(normal);
                let i = y * 32 + x;
                // Far away, the mean over a pixel is not the value at its centre.
                if t > 0.0 && t < 8.0 {
                    let depth = t * ray.dot(forward);
                    assert!((frame.depth[i] / depth - 1.0).abs() < 4e-3, "{} for {depth}", frame.depth[i]);
                    assert!((frame.normal[i] - normal).length() < 1e-5);
                    assert_eq!(frame.opacity[i], 1.0);
                    seen += 1;
                }
            }
        }
        assert!(seen > 400, "{seen}");
    }
}

#[test]
fn depth_is_exact_at_sample_centres() {
    let cam = camera(25.0, 15.0, 32);
    let normal = Vec3::new(0.3, 0.2, 1.0).normalize();
    let asset = one(square(Vec3::ZERO, normal, 300.0), matte([1.0; 4]));
    let frame = render(&asset, &cam, &Lighting::flat(), Vec3::ZERO, 1);
    for i in 0..32 * 32 {
        let ray = cam.direction((i % 32) as f32 + 0.5, (i / 32) as f32 + 0.5);
        let depth = -cam.origin().dot(normal) / ray.dot(normal) * -ray.dot(cam.c2w.z_axis.truncate());
        // f32 rounding, and corners 1/512 of a sample off.
        assert!((frame.depth[i] / depth - 1.0).abs() < 2e-4);
    }
}

#[test]
fn a_sphere_covers_the_disc_of_its_tangent_cone() {
    let (radius, size) = (0.5_f32, 128);
    let frame = draw(&one(sphere(radius, 192), matte([1.0; 4])), &camera(30.0, 20.0, size));
    let half = 0.5 * size as f32 * (radius / 2.4).asin().tan() / (0.5 * FOV).tan();
    let area: f32 = frame.opacity.iter().sum();
    let disc = PI * half * half;
    // The inscribed polygon lacks 0.04 %, 16 samples a pixel see the border to about 0.05 %.
    assert!((area / disc - 1.0).abs() < 1.5e-3, "{area} for {disc}");
    // Its centre shows the nearest point, and the normal towards the camera.
    let centre = (size / 2 * size + size / 2) as usize;
    assert!((frame.depth[centre] - (2.4 - radius)).abs() < 1e-3);
    assert!(frame.normal[centre].dot(camera(30.0, 20.0, size).c2w.z_axis.truncate()) > 0.999);
}

#[test]
fn texture_rows_go_down_and_columns_right() {
    let colors = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 255]];
    let image = RgbaImage::from_fn(2, 2, |x, y| Rgba(colors[(y * 2 + x) as usize]));
    let material = Material { base_color_texture: Some(Arc::new(image)), ..matte([1.0; 4]) };
    let frame = draw(&one(square(Vec3::ZERO, Vec3::Z, 0.8), material), &camera(0.0, 0.0, 64));
    // The texels' centres lie a quarter of the square from its middle: 0.4 world units.
    let step = (0.4 / (2.4 * (0.5 * FOV).tan()) * 32.0) as usize;
    let at = |x: usize, y: usize| frame.rgb[y * 64 + x];
    for (x, y, color) in [
        (32 - step, 32 - step, Vec3::X),
        (32 + step, 32 - step, Vec3::Y),
        (32 - step, 32 + step, Vec3::Z),
        (32 + step, 32 + step, Vec3::ONE),
    ] {
        assert!((at(x, y) - color).length() < 0.1, "{} for {color}", at(x, y));
    }
}

#[test]
fn attributes_are_perspective_correct() {
    // A floor square whose vertex colours are its world coordinates.
    let mut mesh = square(Vec3::new(0.0, -0.4, 0.0), Vec3::Y, 0.8);
    mesh.colors = mesh.positions.iter().map(|p| *p + Vec3::ONE).collect();
    let cam = camera(20.0, 25.0, 48);
    let frame = render(&one(mesh, matte([1.0; 4])), &cam, &Lighting::flat(), Vec3::ZERO, 1);
    let mut seen = 0;
    for i in (0..48 * 48).filter(|&i| frame.opacity[i] == 1.0) {
        let ray = cam.direction((i % 48) as f32 + 0.5, (i / 48) as f32 + 0.5);
        let point = cam.origin() - ray * (cam.origin().y + 0.4) / ray.y;
        assert!((frame.rgb[i] - point - Vec3::ONE).length() < 2e-3);
        seen += 1;
    }
    assert!(seen > 300);
}

#[test]
fn a_small_thing_on_a_pixels_ray_lands_in_that_pixel() {
    for (x, y) in [(3, 5), (20, 9), (13, 29)] {
        let cam = Camera { width: 40, ..camera(70.0, -12.0, 32) };
        let ray = cam.direction(x as f32 + 0.5, y as f32 + 0.5);
        // 1/100 of a pixel in size.
        let asset = one(square(cam.origin() + ray * 2.0, -ray, 2.0e-4), matte([1.0; 4]));
        let frame = render(&asset, &cam, &Lighting::flat(), Vec3::ZERO, 1);
        let hits: Vec<usize> = (0..40 * 32).filter(|&i| frame.opacity[i] > 0.0).collect();
        assert_eq!(hits, [y * 40 + x]);
    }
}

#[test]
fn matte_surfaces_obey_lamberts_law() {
    let direction = Vec3::new(0.5, 0.7, 0.6).normalize();
    let lamp = Vec3::new(0.5, 0.4, 0.3);
    let lighting =
        Lighting { sky: Vec3::splat(0.4), ground: Vec3::splat(0.2), lights: vec![(direction, lamp)] };
    let albedo = Vec3::new(0.8, 0.5, 0.2);
    for normal in [Vec3::Z, Vec3::new(0.3, 0.5, 0.8).normalize(), Vec3::new(-0.9, -0.4, 0.2).normalize()] {
        let asset = one(square(Vec3::ZERO, normal, 0.3), matte(albedo.extend(1.0).to_array()));
        let frame = render(&asset, &camera(0.0, 0.0, 33), &lighting, Vec3::ZERO, 2);
        let hemisphere = 0.2 + 0.2 * (0.5 * normal.y + 0.5);
        let expected = albedo * (Vec3::splat(hemisphere) + lamp * normal.dot(direction).max(0.0));
        assert!((frame.rgb[16 * 33 + 16] - expected).length() < 1e-5);
    }
}

#[test]
fn studio_light_keeps_white_below_one_and_shadows_readable() {
    let lighting = Lighting::studio();
    let frame =
        render(&one(sphere(0.6, 48), matte([1.0; 4])), &camera(0.0, 15.0, 64), &lighting, Vec3::ZERO, 2);
    for (color, _) in frame.rgb.iter().zip(&frame.opacity).filter(|(_, o)| **o == 1.0) {
        assert!(color.max_element() <= 1.0 && color.min_element() > 0.35, "{color}");
    }
}

#[test]
fn an_edge_covers_the_share_of_the_pixel_behind_it() {
    // One world unit at the origin is this many pixels; the edge lies at x = 16 + shift pixels.
    let unit = 16.0 / (2.4 * (0.5 * FOV).tan());
    for quarter in 0..8 {
        let shift = quarter as f32 / 4.0;
        let edge = shift / unit;
        let asset = one(square(Vec3::new(edge - 2.0, 0.0, 0.0), Vec3::Z, 2.0), matte([1.0; 4]));
        let frame = render(&asset, &camera(0.0, 0.0, 32), &Lighting::flat(), Vec3::ZERO, 4);
        let row: f32 = frame.opacity[16 * 32..17 * 32].iter().sum();
        assert_eq!(row, 16.0 + shift);
        assert!((frame.rgb[16 * 32 + 16].x - shift.min(1.0)).abs() < 1e-6, "composited over black");
    }
}

#[test]
fn triangles_that_share_edges_share_no_sample_and_leave_none() {
    // A grid over more than the screen with shaken inner points, some triangles far off screen.
    let rng = Rng::new(3, Stream::Probe, 0);
    let n = 14;
    let mut mesh = Mesh::default();
    for i in 0..n * n {
        let shake = |k: u64| (rng.uniform(2 * i as u64 + k) - 0.5) * 0.25;
        let (x, y) = ((i % n) as f32 / 5.0 - 1.3, (i / n) as f32 / 5.0 - 1.3);
        mesh.positions.push(Vec3::new(x + shake(0), y + shake(1), 0.0));
    }
    for i in (0..n * (n - 1)).filter(|i| i % n != n - 1) {
        let i = i as u32;
        mesh.triangles.extend([[i, i + 1, i + n as u32], [i + n as u32, i + 1, i + n as u32 + 1]]);
    }
    let prepared = PreparedAsset::new(&one(mesh, matte([1.0; 4])));
    let mut scene = project::project(&[Instance::new(&prepared, Mat4::IDENTITY)], &camera(0.0, 0.0, 32), 4);
    let mut hits = vec![0; 128 * 128];
    for triangle in std::mem::take(&mut scene.triangles) {
        scene.triangles = vec![triangle];
        for (count, seen) in hits.iter_mut().zip(fill::fill(&scene).triangle) {
            *count += i32::from(seen != fill::EMPTY);
        }
    }
    // Shaking can fold a triangle over, which covers a sample three times, but never twice or not.
    assert!(hits.iter().all(|h| h % 2 == 1), "{:?}", hits.iter().find(|h| *h % 2 == 0));
    assert!(hits.iter().filter(|h| **h == 1).count() > 15_000);
}

#[test]
fn fine_textures_average_instead_of_aliasing() {
    let image =
        RgbaImage::from_fn(
            256,
            256,
            |x, y| if (x + y) % 2 == 0 { Rgba([255; 4]) } else { Rgba([0, 0, 0, 255]) },
        );
    let material = Material { base_color_texture: Some(Arc::new(image)), ..matte([1.0; 4]) };
    // Tilted, so that one side is twice as fine as the other.
    let asset = one(square(Vec3::ZERO, Vec3::new(0.0, 0.8, 0.6), 0.7), material);
    let frame = draw(&asset, &camera(0.0, 0.0, 32));
    let inside: Vec<f32> =
        (0..32 * 32).filter(|&i| frame.opacity[i] == 1.0).map(|i| frame.rgb[i].x).collect();
    assert!(inside.len() > 100);
    // Half the light; the first level is stored in 8 bits, which moves it by up to 0.003.
    assert!(inside.iter().all(|x| (x - 0.5).abs() < 0.01), "{inside:?}");
}

#[test]
fn footprints_choose_levels_by_area() {
    // A black quadrant shows in fine levels and fades into the mean in the coarsest.
    let image =
        RgbaImage::from_fn(
            64,
            64,
            |x, y| if x < 32 && y < 32 { Rgba([0, 0, 0, 255]) } else { Rgba([255; 4]) },
        );
    let asset = one(
        square(Vec3::ZERO, Vec3::Z, 1.0),
        Material { base_color_texture: Some(Arc::new(image)), ..matte([1.0; 4]) },
    );
    let prepared = PreparedAsset::new(&asset);
    let texture = prepared.materials[0].texture.as_ref().unwrap();
    let (fine, _) = texture.sample(Vec2::splat(0.25), 1.0);
    let (coarse, _) = texture.sample(Vec2::splat(0.25), 4096.0);
    let (finer_than_texels, _) = texture.sample(Vec2::splat(0.25), 0.0);
    assert_eq!((fine, finer_than_texels), (Vec3::ZERO, Vec3::ZERO));
    assert!((coarse.x - 0.75).abs() < 0.01, "one texel, the mean: {coarse}");
    let limited = PreparedAsset::with_texture_limit(&asset, 16);
    assert_eq!(limited.materials[0].texture.as_ref().unwrap().area(), 256.0);
}

#[test]
fn half_transparent_surfaces_cover_half_the_samples() {
    for (alpha, covered) in [(0.0, 0.0), (0.25, 0.25), (0.5, 0.5), (1.0, 1.0)] {
        let asset = one(square(Vec3::ZERO, Vec3::Z, 0.5), matte([1.0, 1.0, 1.0, alpha]));
        assert_eq!(draw(&asset, &camera(0.0, 0.0, 32)).opacity[16 * 32 + 16], covered);
    }
    // A texture's transparent half is a hole, and what colour lies under it does not matter.
    let image = RgbaImage::from_fn(2, 1, |x, _| if x == 0 { Rgba([0, 0, 0, 0]) } else { Rgba([255; 4]) });
    let material = Material { base_color_texture: Some(Arc::new(image)), ..matte([1.0; 4]) };
    let frame = draw(&one(square(Vec3::ZERO, Vec3::Z, 0.6), material), &camera(0.0, 0.0, 64));
    let at = |x: usize| (frame.opacity[32 * 64 + x], frame.rgb[32 * 64 + x].x);
    // The texels' centres lie 11 pixels from the middle.
    assert!(at(21).0 < 0.1 && at(42).0 > 0.9);
    assert!((0..64).all(|x| (at(x).0 - at(x).1).abs() < 1e-5), "black does not bleed in");
}

#[test]
fn normals_face_the_camera_whatever_the_winding_side_or_mirroring() {
    let cam = camera(30.0, 20.0, 48);
    let expected = draw(&one(sphere(0.5, 48), matte([1.0; 4])), &cam);
    let same = |frame: &Frame, what: &str| {
        for i in 0..48 * 48 {
            if expected.opacity[i] == 1.0 && frame.opacity[i] == 1.0 {
                assert!(frame.normal[i].dot(expected.normal[i]) > 0.99, "{what}");
            }
        }
    };
    let mut reversed = sphere(0.5, 48);
    reversed.triangles.iter_mut().for_each(|t| t.swap(0, 1));
    same(&draw(&one(reversed.clone(), matte([1.0; 4])), &cam), "winding reversed");
    reversed.normals.iter_mut().for_each(|n| *n = -*n);
    same(&draw(&one(reversed.clone(), matte([1.0; 4])), &cam), "inside out");
    reversed.normals.clear();
    same(&draw(&one(reversed, matte([1.0; 4])), &cam), "no normals");
    let prepared = PreparedAsset::new(&one(sphere(1.0, 48), matte([1.0; 4])));
    let mirror = Mat4::from_scale(Vec3::new(-0.5, 0.5, 0.5));
    let lighting = Lighting::flat();
    same(&render_scene(&[Instance::new(&prepared, mirror)], &cam, &lighting, Vec3::ZERO, 4), "mirrored");
}

#[test]
fn instances_equal_transformed_meshes() {
    let cam = camera(30.0, 20.0, 48);
    let mesh = sphere(0.3, 24);
    let transform = Mat4::from_scale_rotation_translation(
        Vec3::new(1.0, 0.5, 1.5),
        Quat::from_rotation_z(0.5),
        Vec3::new(0.2, -0.1, 0.1),
    );
    let to_normal = Mat3::from_mat4(transform).inverse().transpose();
    let baked = Mesh {
        positions: mesh.positions.iter().map(|p| transform.transform_point3(*p)).collect(),
        normals: mesh.normals.iter().map(|n| (to_normal * *n).normalize()).collect(),
        ..mesh.clone()
    };
    let lighting = Lighting::studio();
    let paint = matte([0.7, 0.3, 0.2, 1.0]);
    let expected = render(&one(baked, paint.clone()), &cam, &lighting, Vec3::ONE, 2);
    let prepared = PreparedAsset::new(&one(mesh, paint));
    let frame = render_scene(&[Instance::new(&prepared, transform)], &cam, &lighting, Vec3::ONE, 2);
    let worst = |a: &Frame, b: &Frame| {
        a.rgb.iter().zip(&b.rgb).map(|(p, q)| (*p - *q).abs().max_element()).fold(0.0, f32::max)
    };
    // Rounding may move a corner by one fixed-point step and with it single samples of the border.
    let moved =
        expected.rgb.iter().zip(&frame.rgb).filter(|(p, q)| (**p - **q).abs().max_element() > 1e-3).count();
    assert!(moved < 8, "{moved} pixels differ");
    // The nearer instance hides the other, in either order.
    let far = Instance::new(&prepared, Mat4::from_scale(Vec3::splat(2.0)));
    let look = Look { repaint: Some(Vec3::new(0.0, 0.0, 1.0)), ..Look::default() };
    let near = Instance { look, ..Instance::new(&prepared, Mat4::from_translation(cam.origin() * 0.35)) };
    let both = render_scene(&[far, near], &cam, &Lighting::flat(), Vec3::ONE, 2);
    let turned = render_scene(&[near, far], &cam, &Lighting::flat(), Vec3::ONE, 2);
    assert_eq!(worst(&both, &turned), 0.0);
    assert_eq!(both.rgb[24 * 48 + 24], Vec3::Z, "repainted");
    let tinted = Instance { look: Look { tint: Vec3::new(0.5, 1.0, 1.0), ..Look::default() }, ..far };
    let tinted = render_scene(&[tinted], &cam, &Lighting::flat(), Vec3::ONE, 2);
    assert!((tinted.rgb[24 * 48 + 24] - Vec3::new(0.35, 0.3, 0.2)).length() < 1e-5);
}

#[test]
fn gloss_brightens_where_the_lamp_is_mirrored_and_metal_keeps_its_hue() {
    let cam = camera(0.0, 0.0, 65);
    let lighting =
        Lighting { sky: Vec3::splat(0.5), ground: Vec3::splat(0.5), lights: vec![(Vec3::Z, Vec3::ONE)] };
    let draw = |metallic: f32, roughness: f32| {
        let material = Material { metallic, roughness, ..matte([0.8, 0.4, 0.1, 1.0]) };
        render(&one(sphere(0.5, 96), material), &cam, &lighting, Vec3::ZERO, 1).rgb
    };
    let (middle, side) = (32 * 65 + 32, 32 * 65 + 42);
    let (dull, shiny) = (draw(0.0, 1.0), draw(0.0, 0.3));
    assert!(shiny[middle].x > dull[middle].x + 0.1 && shiny[side].x - dull[side].x < 0.05);
    let metal = draw(1.0, 0.3)[middle];
    assert!((metal.y / metal.x - 0.5).abs() < 1e-3, "{metal}");
    assert!(draw(1.0, 1.0)[side].x > 0.3, "rough metal is not black");
}

#[test]
fn hostile_geometry_is_drawn_or_left_out_but_never_panics() {
    let mut mesh = sphere(1.0, 8);
    mesh.positions[3] = Vec3::splat(f32::NAN);
    mesh.positions[9] = Vec3::splat(1e30);
    mesh.positions[12] = Vec3::ZERO;
    mesh.triangles.push([0, 1, 999]);
    mesh.triangles.push([2, 2, 2]);
    mesh.material = 7;
    mesh.uvs = vec![Vec2::new(f32::INFINITY, -1e20); 4];
    let asset = one(mesh, matte([1.0; 4]));
    for distance in [0.0, 0.5, 2.0] {
        let cam = Camera::orbit(10.0, 5.0, distance, Vec3::ZERO, FOV, 16);
        let frame = draw(&asset, &cam);
        assert!(frame.rgb.iter().all(|c| c.is_finite()));
        assert_eq!(frame.to_srgb8().dimensions(), (16, 16));
    }
    let frame = render_scene(&[], &camera(0.0, 0.0, 4), &Lighting::flat(), Vec3::splat(0.5), 0);
    assert!(frame.rgb.iter().all(|c| *c == Vec3::splat(0.5)));
}
