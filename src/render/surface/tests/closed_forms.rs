//! Visibility against rays in f64, exact coverage, layers, and input that is broken.

use glam::{DVec3, Vec3};

use super::super::{Paint, SurfaceGrad, SurfaceInput, SurfaceOptions, SurfaceRenderer, Topology, Wrap};
use super::super::{Sampling, Texture};
use super::reference::{hit, pixels};
use super::{cameras, cube, draw, noise};
use crate::gpu::backend::Device;
use crate::render::camera::Camera;

/// A camera at the origin that looks along −Z, with 2·tan(fov/2) = 1.
fn frontal(width: u32, height: u32) -> Camera {
    let mut camera = Camera::orbit(0.0, 0.0, 0.0, Vec3::ZERO, 2.0 * 0.5f32.atan(), height);
    camera.width = width;
    camera
}

/// All triangles that a ray meets, nearest first: (depth, triangle, distance from its border in
/// barycentric coordinates); only in front of `near`.
fn hits(
    camera: &Camera,
    positions: &[f32],
    triangles: &[[u32; 3]],
    x: f64,
    y: f64,
) -> Vec<(f64, usize, f64)> {
    let corner = |i: u32| DVec3::from_array([0, 1, 2].map(|k| f64::from(positions[3 * i as usize + k])));
    let mut all: Vec<_> = (triangles.iter().enumerate())
        .map(|(t, triangle)| {
            let hit = hit(camera, triangle.map(corner), x, y);
            (hit.depth, t, hit.b.min_element())
        })
        .filter(|(depth, _, border)| *depth > 0.01 && *border > -1e-3)
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// Compares ids and depths of a layer; pixels at borders and at crossings are left out. Returns how
/// many were compared and seen.
fn compare(positions: &[f32], triangles: &[[u32; 3]], cameras: &[Camera], layer: usize) -> usize {
    let options = SurfaceOptions { layer: layer as u32, ..Default::default() };
    let output = draw(positions, triangles, &vec![0.5; positions.len()], cameras, &options);
    let (mut seen, mut left_out) = (0, 0);
    for (at, camera, x, y) in pixels(cameras) {
        let hits = hits(camera, positions, triangles, x, y);
        let near = |pair: &[(f64, usize, f64)]| pair[1].0 - pair[0].0 < 1e-4 * pair[0].0;
        if hits.iter().any(|h| h.2 < 1e-3) || hits.windows(2).any(near) {
            left_out += 1;
            continue;
        }
        let wanted = hits.get(layer);
        assert_eq!(
            output.ids[at],
            wanted.map_or(0, |h| h.1 as u32 + 1),
            "layer {layer}, pixel {x}, {y}: {hits:?}"
        );
        let depth = wanted.map_or(0.0, |h| h.0);
        assert!((f64::from(output.depth[at]) - depth).abs() <= 1e-4 * depth, "{} {depth}", output.depth[at]);
        seen += usize::from(wanted.is_some());
    }
    assert!(left_out * 10 < output.ids.len(), "{left_out} of {} left out", output.ids.len());
    seen
}

/// Triangles of all sizes around the origin, without common vertices.
fn soup(n: usize) -> (Vec<f32>, Vec<[u32; 3]>) {
    let (centers, corners) = (noise(20, 3 * n, 0.7), noise(21, 9 * n, 1.0));
    let positions =
        (0..9 * n).map(|i| centers[3 * (i / 9) + i % 3] + corners[i] * [0.02, 0.1, 0.5][i / 9 % 3]).collect();
    (positions, (0..n as u32).map(|t| [3 * t, 3 * t + 1, 3 * t + 2]).collect())
}

#[test]
fn the_nearest_triangle_is_the_one_that_a_ray_meets_first() {
    let (positions, triangles) = soup(60);
    let mut views = cameras(3, 45);
    views.iter_mut().for_each(|c| c.width = 61);
    assert!(compare(&positions, &triangles, &views, 0) > 2000);
}

#[test]
fn layers_are_peeled_in_the_order_of_depth() {
    let (positions, triangles) = soup(60);
    let seen: Vec<_> = (0..3).map(|layer| compare(&positions, &triangles, &cameras(2, 40), layer)).collect();
    assert!(seen[1] > 200 && seen[2] > 20 && seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
}

#[test]
fn triangles_through_the_camera_plane_are_seen_where_they_are_in_front() {
    // The floor reaches far behind the camera; a wall passes through the eye's plane at its side.
    let positions = [
        [-50.0, -0.4, 40.0],
        [50.0, -0.4, 40.0],
        [50.0, -0.4, -90.0],
        [-50.0, -0.4, -90.0],
        [0.6, -3.0, 5.0],
        [0.6, 9.0, 5.0],
        [0.7, -2.0, -20.0],
    ];
    let triangles = [[0, 1, 2], [0, 2, 3], [4, 5, 6]];
    let seen = compare(positions.as_flattened(), &triangles, &[frontal(64, 48)], 0);
    assert!(seen > 64 * 48 / 3, "{seen}");
}

/// A rectangle at depth 1 with its borders at the given pixel coordinates of a 16-pixel picture.
fn rectangle([x0, x1, y0, y1]: [f32; 4]) -> Vec<f32> {
    let [x0, x1] = [x0, x1].map(|x| (x - 8.0) / 16.0);
    let [y0, y1] = [y0, y1].map(|y| (8.0 - y) / 16.0);
    [[x0, y1], [x1, y1], [x1, y0], [x0, y0]].iter().flat_map(|[x, y]| [*x, *y, -1.0]).collect()
}

#[test]
fn an_axis_aligned_edge_covers_its_exact_share_of_a_pixel() {
    let triangles = [[0, 1, 2], [0, 2, 3]];
    for step in 0..40 {
        let offset = step as f32 / 20.0 + 0.013;
        for axis in 0..2 {
            let borders =
                if axis == 0 { [3.3, 10.0 + offset, 2.0, 14.0] } else { [2.0, 14.0, 3.3, 10.0 + offset] };
            let output = draw(
                &rectangle(borders),
                &triangles,
                &[1.0; 12],
                &[frontal(16, 16)],
                &SurfaceOptions::default(),
            );
            let line: Vec<f32> =
                (0..16).map(|i| output.mask[if axis == 0 { 16 * 8 + i } else { 16 * i + 8 }]).collect();
            for (i, found) in line.iter().enumerate() {
                let covered = ((10.0 + offset).min(i as f32 + 1.0) - 3.3f32.max(i as f32)).clamp(0.0, 1.0);
                assert!(
                    (found - covered).abs() < 1e-5,
                    "offset {offset}, axis {axis}, pixel {i}: {found}, not {covered}"
                );
                let at = if axis == 0 { 16 * 8 + i } else { 16 * i + 8 };
                let blue = 0.3 + covered * 0.7;
                assert!((output.rgb[3 * at + 2] - blue).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn the_gradient_of_coverage_by_an_edge_is_the_length_of_the_edge() {
    let topology = Topology::new(4, &[[0, 1, 2], [0, 2, 3]]).unwrap();
    let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
    let positions = rectangle([3.3, 11.2, 2.0, 14.0]);
    let input = SurfaceInput {
        positions: &positions,
        paint: Paint::Colors(&[1.0; 12]),
        cameras: &[frontal(16, 16)],
        backgrounds: &[Vec3::ZERO],
    };
    renderer.render(&input, &SurfaceOptions::default()).unwrap();
    let grad = renderer.backward(&SurfaceGrad { mask: Some(&[1.0; 256]), ..Default::default() }).unwrap();
    // 12 rows, 16 pixels a unit: the area grows by 192 pixels a unit when the left border moves. On the
    // right it is 11 rows: in the topmost, the last pixel's centre is in the triangle beyond the
    // diagonal, to which the border does not belong (the method looks at that triangle's edges alone).
    let right = grad.positions[3] + grad.positions[6];
    let left = grad.positions[0] + grad.positions[9];
    assert!((right - 176.0).abs() < 1e-2 && (left + 192.0).abs() < 1e-2, "{right} {left}");
}

#[test]
fn the_edge_between_two_faces_is_blended_only_where_the_surface_folds_back() {
    // A ridge towards the camera: its middle edge is inside the outline. Two faces of one colour each
    // would show a blend there.
    let positions = [
        [-0.4, -0.3, -1.2],
        [0.02, -0.3, -1.0],
        [0.02, 0.3, -1.0],
        [-0.4, 0.3, -1.2],
        [0.4, -0.3, -1.2],
        [0.4, 0.3, -1.2],
    ];
    let triangles = [[0, 1, 2], [0, 2, 3], [1, 4, 5], [1, 5, 2]];
    let output = draw(
        positions.as_flattened(),
        &triangles,
        &[1.0; 18],
        &[frontal(16, 16)],
        &SurfaceOptions::default(),
    );
    let row = &output.mask[16 * 8..16 * 9];
    assert!(row[4..12].iter().all(|m| *m == 1.0), "{row:?}");
    // The same ridge, its right face swung back behind the left one: the middle edge is the outline.
    let mut folded = positions;
    (folded[4][0], folded[5][0]) = (-0.3, -0.3);
    (folded[4][2], folded[5][2]) = (-1.5, -1.5);
    let output =
        draw(folded.as_flattened(), &triangles, &[1.0; 18], &[frontal(16, 16)], &SurfaceOptions::default());
    let width: f32 = output.mask[16 * 8..16 * 9].iter().sum();
    let exact = 16.0 * (0.02 + 0.4 / 1.2);
    assert!((width - exact).abs() < 1e-3, "{width}, {exact}");
}

#[test]
fn a_linear_texture_is_reproduced_exactly() {
    // Texel centres hold u and v themselves; between them bilinear interpolation adds nothing.
    let (width, height) = (16, 8);
    let texels: Vec<f32> = (0..height * width)
        .flat_map(|i| {
            [((i % width) as f32 + 0.5) / width as f32, ((i / width) as f32 + 0.5) / height as f32, 0.25]
        })
        .collect();
    let positions = [[-0.4, -0.4, -1.0], [0.4, -0.4, -1.0], [0.3, 0.4, -1.5], [-0.4, 0.3, -1.2]];
    let uvs = [[0.1, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.1]];
    let topology = Topology::new(4, &[[0, 1, 2], [0, 2, 3]]).unwrap();
    let draw = |paint| {
        let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
        let cameras = [frontal(24, 24)];
        let input = SurfaceInput {
            positions: positions.as_flattened(),
            paint,
            cameras: &cameras,
            backgrounds: &[Vec3::ZERO],
        };
        let options =
            SurfaceOptions { sampling: Sampling::Bilinear, wrap: Wrap::Clamp, ..Default::default() };
        renderer.render(&input, &options).unwrap()
    };
    let colors: Vec<f32> = uvs.iter().flat_map(|[u, v]| [*u, *v, 0.25]).collect();
    let textured = draw(Paint::Texture(uvs.as_flattened(), Texture { texels: &texels, width, height }));
    let wanted = draw(Paint::Colors(&colors));
    assert!(wanted.mask.iter().sum::<f32>() > 100.0);
    for (found, wanted) in textured.rgb.iter().zip(&wanted.rgb) {
        assert!((found - wanted).abs() < 2e-6, "{found} {wanted}");
    }
}

#[test]
fn broken_triangles_are_not_drawn_and_harm_nothing() {
    let (mut positions, mut triangles) = cube();
    let views = cameras(2, 24);
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let colors = vec![0.5; 24 + 18];
    let with = |positions: &[f32], triangles: &[[u32; 3]], colors: &[f32]| {
        let topology = Topology::new(positions.len() / 3, triangles).unwrap();
        let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
        let input = SurfaceInput {
            positions,
            paint: Paint::Colors(colors),
            cameras: &views,
            backgrounds: &[Vec3::ZERO; 2],
        };
        let output =
            renderer.render(&input, &SurfaceOptions { normals: true, ..Default::default() }).unwrap();
        let ones = vec![1.0; 3 * output.mask.len()];
        let grad = SurfaceGrad {
            rgb: Some(&ones),
            normal: Some(&ones),
            depth: Some(&ones[..output.mask.len()]),
            ..Default::default()
        };
        (output, renderer.backward(&grad).unwrap())
    };
    let (whole, whole_grad) = with(&positions, &triangles, &colors[..24]);
    positions.extend([
        nan, 0.0, 0.0, inf, 1.0, 1.0, 1e30, 1e30, 1e30, 3e38, -3e38, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ]);
    // NaN, infinity, overflow; no area (a line, a point); all behind the camera is in the soup's test.
    triangles.extend([[8, 0, 9], [9, 2, 10], [10, 11, 9], [12, 13, 12], [12, 12, 12], [0, 7, 7]]);
    let (broken, broken_grad) = with(&positions, &triangles, &colors);
    assert_eq!(whole.ids, broken.ids);
    assert_eq!(whole.rgb, broken.rgb);
    assert_eq!(whole.normal, broken.normal);
    assert!(broken_grad.positions.iter().all(|g| g.is_finite()), "{:?}", broken_grad.positions);
    assert_eq!(whole_grad.positions, broken_grad.positions[..24]);
}

#[test]
fn nothing_at_all_gives_the_background() {
    let output = draw(&[], &[], &[], &cameras(1, 8), &SurfaceOptions { normals: true, ..Default::default() });
    assert!(output.mask.iter().all(|m| *m == 0.0) && output.rgb[..3] == [0.1, 0.2, 0.3]);
}

#[test]
fn culling_leaves_the_side_out_that_turns_clockwise() {
    let (positions, triangles) = cube();
    let flipped: Vec<_> = triangles.iter().map(|[a, b, c]| [*a, *c, *b]).collect();
    let colors = vec![0.5; 24];
    let cull = SurfaceOptions { cull_back_faces: true, ..Default::default() };
    let views = cameras(1, 24);
    let whole = draw(&positions, &triangles, &colors, &views, &SurfaceOptions::default());
    assert_eq!(whole.ids, draw(&positions, &triangles, &colors, &views, &cull).ids);
    // Inside out, the far side shows: the second layer of the whole.
    let second = SurfaceOptions { layer: 1, ..Default::default() };
    let behind = draw(&positions, &triangles, &colors, &views, &second);
    assert_eq!(behind.ids, draw(&positions, &flipped, &colors, &views, &cull).ids);
}

#[test]
fn misuse_is_an_error_that_says_what_is_wrong() {
    let says = |error: crate::Error, text: &str| assert!(error.to_string().contains(text), "{error}");
    says(Topology::new(3, &[[0, 1, 3]]).unwrap_err(), "triangle 0");
    says(Topology::with_seams(3, &[[0, 1, 2]], 3, &[]).unwrap_err(), "0 for 1");
    let topology = Topology::new(3, &[[0, 1, 2]]).unwrap();
    let mut renderer = SurfaceRenderer::new(&Device::cpu(), &topology).unwrap();
    says(renderer.backward(&SurfaceGrad::default()).unwrap_err(), "nothing was rendered");
    let views = cameras(1, 8);
    let good = SurfaceInput {
        positions: &[0.0; 9],
        paint: Paint::Colors(&[0.0; 9]),
        cameras: &views,
        backgrounds: &[Vec3::ZERO],
    };
    let texture = Texture { texels: &[0.0; 11], width: 2, height: 2 };
    for (input, text) in [
        (SurfaceInput { positions: &[0.0; 8], ..good }, "positions: 8"),
        (SurfaceInput { paint: Paint::Colors(&[0.0; 6]), ..good }, "attributes: 6"),
        (SurfaceInput { paint: Paint::Texture(&[0.0; 6], texture), ..good }, "texture: 11"),
        (SurfaceInput { cameras: &[], ..good }, "cameras"),
        (SurfaceInput { backgrounds: &[], ..good }, "backgrounds"),
    ] {
        says(renderer.render(&input, &SurfaceOptions::default()).unwrap_err(), text);
    }
    says(renderer.render(&good, &SurfaceOptions { near: 0.0, ..Default::default() }).unwrap_err(), "near");
    renderer.render(&good, &SurfaceOptions::default()).unwrap();
    says(renderer.backward(&SurfaceGrad { mask: Some(&[0.0]), ..Default::default() }).unwrap_err(), "mask");
    says(
        renderer.backward(&SurfaceGrad { normal: Some(&[0.0; 192]), ..Default::default() }).unwrap_err(),
        "normal",
    );
}
