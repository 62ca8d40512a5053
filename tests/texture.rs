//! `gen3d texture` under a guide whose opinion is known: it wants the pictures of a ball that is red on its
//! right, blue on its left and yellow in front. The run must find these colours whatever the light, keep the shape,
//! and go on after an interruption as if there had been none.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gen3d::asset::{self, Asset, Material, Mesh};
use gen3d::config::Config;
use gen3d::config::layers::{self, Layer};
use gen3d::generate::event::{Event, Summary};
use gen3d::generate::folder::RunFolder;
use gen3d::generate::guide::{Guidance, Guide, Views};
use gen3d::generate::timing::Timings;
use gen3d::generate::{Job, texture};
use gen3d::gpu::backend::Device;
use gen3d::render::color::{linear_to_srgb, srgb8_to_linear};
use gen3d::render::light::Lighting;
use gen3d::{Error, Result};
use glam::{Quat, Vec2, Vec3};

/// What the box makes of a ball's radius: its largest side is 1.2 there.
const RADIUS: f32 = 0.6;

fn color(n: Vec3) -> Vec3 {
    match n {
        n if n.z > 0.6 => Vec3::new(0.7, 0.6, 0.05),
        n if n.x > 0.0 => Vec3::new(0.6, 0.05, 0.05),
        _ => Vec3::new(0.05, 0.1, 0.6),
    }
}

/// A ball of radius 3, somewhere; with texture coordinates (one chart, but pinched at the poles) if asked for.
fn ball(uvs: bool) -> Asset {
    let (rings, segments) = (16u32, 32u32);
    let mut mesh = Mesh::default();
    for i in 0..=rings {
        for j in 0..=segments {
            let (v, u) = (i as f32 / rings as f32, j as f32 / segments as f32);
            let ((st, ct), (sp, cp)) =
                ((v * std::f32::consts::PI).sin_cos(), (u * std::f32::consts::TAU).sin_cos());
            let n = Vec3::new(st * sp, ct, st * cp);
            mesh.positions.push(Vec3::new(5.0, 1.0, -2.0) + 3.0 * n);
            mesh.normals.push(n.normalize());
            if uvs {
                mesh.uvs.push(Vec2::new(u, v));
            }
        }
    }
    let row = segments + 1;
    for (i, j) in (0..rings).flat_map(|i| (0..segments).map(move |j| (i, j))) {
        let a = i * row + j;
        // At the poles one of the two has no area.
        mesh.triangles.extend((i + 1 < rings).then_some([a, a + row, a + row + 1]));
        mesh.triangles.extend((i > 0).then_some([a, a + row + 1, a + 1]));
    }
    Asset { meshes: vec![mesh], materials: vec![Material::default()], ..Asset::default() }
}

/// The studio's light on a matte surface, its lamps averaged over all turns about the vertical axis.
fn irradiance(light: &Lighting, normal: Vec3) -> Vec3 {
    let turns = (0..12).map(|k| Quat::from_rotation_y(k as f32 * std::f32::consts::FRAC_PI_6));
    let lamp = |(direction, color): &(Vec3, Vec3)| -> Vec3 {
        turns.clone().map(|turn| *color * normal.dot(turn * *direction).max(0.0) / 12.0).sum()
    };
    light.hemisphere(normal.y) + light.lights.iter().map(lamp).sum::<Vec3>()
}

/// Wants the ball in the studio's light; a squared error's gradient.
struct Known {
    /// Asks to stop at this step.
    stop: Option<(u32, &'static AtomicBool)>,
}

impl Guide for Known {
    fn identity(&self) -> String {
        "known".into()
    }

    fn guide(&mut self, views: &Views<'_>, _: &mut Timings) -> Result<Guidance> {
        if let Some((step, flag)) = self.stop
            && views.step == step
        {
            flag.store(true, Ordering::Relaxed);
        }
        let light = Lighting::studio();
        let n = views.size * views.size;
        let mut gradient = vec![0.0; views.pixels.len()];
        for (view, camera) in views.cameras.iter().enumerate() {
            for i in 0..n {
                let (x, y) = ((i % views.size) as f32 + 0.5, (i / views.size) as f32 + 0.5);
                let (o, d) = (camera.origin(), camera.direction(x, y));
                let b = o.dot(d);
                let root = b * b - o.length_squared() + RADIUS * RADIUS;
                if root <= 0.01 {
                    continue;
                }
                let normal = (o + d * (-b - root.sqrt())) / RADIUS;
                let shown = color(normal) * irradiance(&light, normal);
                for c in 0..3 {
                    let at = (view * 3 + c) * n + i;
                    gradient[at] = views.pixels[at] - (2.0 * linear_to_srgb(shown[c].min(1.0)) - 1.0);
                }
            }
        }
        Ok(Guidance { gradient, rms: 1.0, timestep: 500.0, learned: 0.0 })
    }
}

fn config(more: &[(&str, toml::Value)]) -> Config {
    let mut all = vec![texture::preset().unwrap()];
    let own: [(&str, toml::Value); 9] = [
        ("device", "cpu".into()),
        ("camera.views", 3.into()),
        ("camera.size", 32.into()),
        ("optim.steps", 80.into()),
        ("texture.resolution", 24.into()),
        ("texture.learning_rate", 0.1.into()),
        ("mesh.texture_size", 128.into()),
        ("output.preview_every", 40.into()),
        ("output.sheet_size", 32.into()),
    ];
    let all_keys = own.iter().chain(more).map(|(key, value)| Layer::one("test", key, value.clone()));
    all.extend(all_keys);
    layers::resolve(&all).unwrap()
}

fn run(
    dir: &Path,
    model: &Asset,
    config: Config,
    resume: bool,
    stop: Option<u32>,
) -> (Result<Summary>, Vec<String>) {
    let cancel: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let folder = RunFolder::check(&dir.join("ball.glb")).unwrap();
    let job = Job { prompt: "a ball".into(), folder, config, resume };
    let mut guide = Known { stop: stop.map(|step| (step, cancel)) };
    let mut warnings = Vec::new();
    let mut listener = |event: &Event| {
        if let Event::Warning { message, .. } = event {
            warnings.push(message.clone());
        }
    };
    let done =
        texture::run_with(&job, model, &Device::cpu(), &mut guide, Timings::default(), cancel, &mut listener);
    (done, warnings)
}

/// Mean distance between the texture's colour and the truth, over the vertices (but near the borders of colours).
fn error(painted: &Asset) -> f32 {
    let (mut sum, mut count) = (0.0, 0);
    for mesh in &painted.meshes {
        let look = &painted.materials[mesh.material];
        let picture = look.base_color_texture.as_ref().unwrap();
        for (n, uv) in mesh.normals.iter().zip(&mesh.uvs) {
            if (n.z - 0.6).abs() < 0.25 || (n.z < 0.6 && n.x.abs() < 0.25) || n.y < -0.6 {
                continue;
            }
            let at =
                (*uv * picture.width() as f32).clamp(Vec2::ZERO, Vec2::splat(picture.width() as f32 - 1.0));
            let [r, g, b, _] = picture.get_pixel(at.x as u32, at.y as u32).0;
            sum += srgb8_to_linear([r, g, b]).distance(color(*n));
            count += 1;
        }
    }
    sum / count as f32
}

#[test]
fn colours_are_found_under_changing_light_and_the_shape_stays() {
    let dir = tempfile::tempdir().unwrap();
    let model = ball(false);
    let (done, warnings) = run(dir.path(), &model, config(&[]), false, None);
    let summary = done.unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let painted = asset::load(&summary.output).unwrap();
    assert_eq!(painted.triangle_count(), model.triangle_count());
    let (low, high) = painted.bounds().unwrap();
    assert!((low - Vec3::new(2.0, -2.0, -5.0)).length() < 1e-4 && (high - low - 6.0).length() < 1e-4);
    let error = error(&painted);
    eprintln!("mean distance {error:.3}");
    // Grey is 0.5 away.
    assert!(error < 0.06, "{error}");
    assert_eq!(painted.extras["prompt"], "a ball");
    for name in ["preview.png", "sheet.png", "config.toml", "log.jsonl", "checkpoint.safetensors"] {
        assert!(dir.path().join("ball.gen3d").join(name).exists(), "{name}");
    }
}

#[test]
fn a_resumed_run_gives_the_bytes_of_an_uninterrupted_one_at_any_number_of_threads() {
    let short = || config(&[("optim.steps", 10.into()), ("texture.pbr", true.into())]);
    let model = ball(true);
    let whole = tempfile::tempdir().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (done, _) = pool.install(|| run(whole.path(), &model, short(), false, None));
    done.unwrap();
    let halves = tempfile::tempdir().unwrap();
    let (stopped, _) = run(halves.path(), &model, short(), false, Some(4));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let (done, _) = run(halves.path(), &model, short(), true, None);
    done.unwrap();
    let bytes = |dir: &Path| std::fs::read(dir.join("ball.glb")).unwrap();
    assert!(bytes(whole.path()) == bytes(halves.path()), "the two differ");
    // Metal and roughness are in the file.
    let painted = asset::load(&whole.path().join("ball.glb")).unwrap();
    assert!(painted.materials[0].maps.metallic_roughness.is_some());
    // Another model does not go on from this one's colours.
    let mut other = model.clone();
    other.meshes[0].positions[7].x += 0.1;
    let (refused, _) = run(halves.path(), &other, short(), true, None);
    assert!(refused.is_err_and(|e| e.is_usage()));
}

#[test]
fn good_coordinates_are_kept_and_bad_ones_are_not() {
    let short = |more: &[(&str, toml::Value)]| config(&[&[("optim.steps", 1.into())], more].concat());
    let dir = tempfile::tempdir().unwrap();
    let model = ball(true);
    let (done, warnings) = run(dir.path(), &model, short(&[]), false, None);
    let kept = asset::load(&done.unwrap().output).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(kept.meshes[0].uvs, model.meshes[0].uvs);
    let (done, _) = run(dir.path(), &model, short(&[("texture.unwrap", true.into())]), false, None);
    assert_ne!(asset::load(&done.unwrap().output).unwrap().meshes[0].uvs, model.meshes[0].uvs);
    let mut doubled = model.clone();
    doubled.meshes[0].uvs.iter_mut().for_each(|uv| uv.x = (uv.x * 2.0).fract());
    let (done, warnings) = run(dir.path(), &doubled, short(&[]), false, None);
    assert!(
        done.is_ok() && warnings.len() == 1 && warnings[0].contains("own texture coordinates"),
        "{warnings:?}"
    );
}
