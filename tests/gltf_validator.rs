//! Every GLB we write passes the Khronos validator without an error or a warning.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use gen3d::asset::glb::Delivery;
use gen3d::asset::{Asset, Material, Mesh, glb, lod};
use gen3d::mesh::{MeshOptions, build_asset};
use glam::{Vec2, Vec3};
use image::{Rgba, RgbaImage};

/// Installs the validator where it is missing, once however many tests ask at the same time.
/// False (with a message) if there is no node.
fn ready(folder: &Path) -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| install(folder))
}

fn install(folder: &Path) -> bool {
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("SKIPPED: node is not installed, so the Khronos validator cannot run");
        return false;
    }
    // npm writes this file last: without it the packages may be there in part.
    if !folder.join("node_modules/.package-lock.json").exists() {
        let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder).output();
        let npm = npm.expect("npm comes with node");
        assert!(npm.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&npm.stderr));
    }
    true
}

/// The validator's reports on the given files' bytes, or nothing without node.
fn reports(files: &[Vec<u8>]) -> Vec<serde_json::Value> {
    let validator = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validator");
    if !ready(&validator) {
        return Vec::new();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("node");
    command.arg("validate.mjs").current_dir(&validator);
    for (number, bytes) in files.iter().enumerate() {
        let path = folder.path().join(format!("{number}.glb"));
        std::fs::write(&path, bytes).unwrap();
        command.arg(path);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(reports.len(), files.len());
    reports
}

/// A product of the main path: fields to textured surface.
fn built() -> Asset {
    let density =
        |points: &[Vec3]| points.iter().map(|p| (80.0 * (0.5 - p.length())).exp().min(500.0)).collect();
    let color = |points: &[Vec3]| points.iter().map(|p| (*p + 1.0) / 2.0).collect();
    let options = MeshOptions { resolution: 40, triangles: 2_000, texture_size: 256, ..Default::default() };
    let (mut asset, report) = build_asset(&density, &color, &options, &mut |_, _| Ok(())).unwrap();
    assert!(report.watertight && report.manifold);
    asset.extras.insert("prompt".into(), "a \"blue jay\" on macarons – ü".into());
    asset.extras.insert("settings".into(), serde_json::json!({ "seed": 3, "scale": 7.5, "none": null }));
    asset
}

/// Parts with every combination of attributes and materials, and values out of range.
fn motley() -> Asset {
    let cut = Arc::new(RgbaImage::from_fn(8, 8, |x, y| Rgba([9, 99, 199, if x > y { 255 } else { 0 }])));
    let veil = Arc::new(RgbaImage::from_pixel(4, 4, Rgba([200, 100, 50, 120])));
    let materials = vec![
        Material { base_color_texture: Some(cut), ..Default::default() },
        Material {
            base_color_texture: Some(veil),
            double_sided: true,
            name: "veil".into(),
            ..Default::default()
        },
        Material {
            emissive: [9.0, 3.0, 0.0],
            base_color: [2.0, 0.5, -1.0, 0.5],
            metallic: 4.0,
            ..Default::default()
        },
    ];
    let mut asset = Asset { materials, ..Default::default() };
    for bits in 0..24usize {
        let part = Mesh {
            positions: vec![Vec3::splat(bits as f32), Vec3::X * 0.1, Vec3::Y * 1e-3],
            normals: if bits & 1 > 0 {
                vec![Vec3::ZERO, Vec3::X * 5.0, Vec3::new(1.0, 1e-9, 0.0)]
            } else {
                vec![]
            },
            uvs: if bits & 2 > 0 { vec![Vec2::ZERO, Vec2::X * 3.0, Vec2::Y] } else { vec![] },
            colors: if bits & 4 > 0 { vec![Vec3::ONE, Vec3::splat(7.0), Vec3::NAN] } else { vec![] },
            triangles: vec![[0, 1, 2], [2, 1, 0]],
            material: bits / 8,
        };
        asset.meshes.push(part);
    }
    asset
}

fn bare() -> Asset {
    let positions = (0..70_000).map(|i| Vec3::new(i as f32, (i % 7) as f32, 0.0)).collect();
    let triangles = (0..69_998).map(|i| [i, i + 1, i + 2]).collect();
    Asset { meshes: vec![Mesh { positions, triangles, ..Default::default() }], ..Default::default() }
}

/// A ball with a normal map, shine and occlusion in pictures.
fn bumpy() -> Asset {
    let mut asset = built();
    let picture = |pixel| Arc::new(RgbaImage::from_pixel(16, 16, Rgba(pixel)));
    let maps = &mut asset.materials[0].maps;
    maps.normal = Some((picture([140, 120, 250, 255]), 0.8));
    maps.metallic_roughness = Some(picture([255, 200, 40, 255]));
    maps.occlusion = Some(picture([220, 220, 220, 255]));
    maps.emissive = Some(picture([0, 10, 90, 255]));
    asset
}

#[test]
fn levels_tangents_and_small_integers_are_valid_too() {
    let mut files = Vec::new();
    for asset in [bumpy(), motley()] {
        let levels = lod::chain(&asset, 3);
        for quantize in [false, true] {
            files.push(glb::write(&asset, &Delivery { levels: &levels, quantize }).unwrap());
        }
    }
    assert!(files[1].len() * 10 < files[0].len() * 8, "{} {}", files[1].len(), files[0].len());
    for (number, report) in reports(&files).iter().enumerate() {
        assert_eq!(report["numErrors"], 0, "file {number}: {report:#}");
        assert_eq!(report["numWarnings"], 0, "file {number}: {report:#}");
    }
    // What comes back is the finest level with all its pictures, and its vertices where they were.
    for bytes in &files[..2] {
        let (back, original) = (gen3d::asset::from_gltf_bytes(bytes).unwrap(), bumpy());
        assert_eq!(back.triangle_count(), original.triangle_count());
        let maps = &back.materials[back.meshes[0].material].maps;
        assert!(maps.metallic_roughness.is_some() && maps.occlusion.is_some() && maps.emissive.is_some());
        assert_eq!(maps.normal.as_ref().unwrap().1, 0.8);
        let corner = |a: &Asset, t: usize| a.meshes[0].positions[a.meshes[0].triangles[t][0] as usize];
        for t in 0..original.triangle_count() {
            assert!((corner(&back, t) - corner(&original, t)).length() < 2e-5, "triangle {t}");
        }
    }
}

#[test]
fn exported_assets_have_no_errors_and_no_warnings() {
    let files = [built(), motley(), bare()].map(|a| glb::to_bytes(&a).unwrap());
    for (number, report) in reports(&files).iter().enumerate() {
        assert_eq!(report["numErrors"], 0, "file {number}: {report:#}");
        assert_eq!(report["numWarnings"], 0, "file {number}: {report:#}");
    }
}

#[test]
fn the_validator_sees_damage() {
    // A normal that is not of unit length, patched into the finished file.
    let mut bytes = glb::to_bytes(&built()).unwrap();
    let document = gltf::Gltf::from_slice(&bytes).unwrap();
    let primitive = document.meshes().next().unwrap().primitives().next().unwrap();
    let normals = primitive.get(&gltf::Semantic::Normals).unwrap().view().unwrap().offset();
    let json = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let at = 20 + json + 8 + normals;
    bytes[at..at + 4].copy_from_slice(&5f32.to_le_bytes());
    for report in reports(&[bytes]) {
        assert_eq!(report["numErrors"], 1, "{report:#}");
    }
}
