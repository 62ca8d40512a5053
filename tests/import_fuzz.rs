//! Broken models: whatever the bytes, reading them gives an asset that holds what it promises or an error,
//! never a panic. Mutations of good files are drawn by number; `GEN3D_FUZZ_SECONDS=300` draws for longer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use gen3d::asset::glb::{self, Delivery};
use gen3d::asset::{Asset, Maps, Material, Mesh, from_gltf_bytes, from_obj_bytes, obj_out};
use gen3d::render::show::{Eye, Illumination, Lens, Show, Style, View};
use gen3d::rng::{Rng, Stream};
use glam::{Vec2, Vec3};
use image::{Rgba, RgbaImage};

/// Mutations of each file without the variable.
const DEFAULT_ROUNDS: u32 = 1500;
/// Spoilt in one place or many.
const PLACES: [u32; 6] = [1, 1, 2, 4, 16, 64];

/// Two parts with every attribute and picture.
fn good() -> Asset {
    let picture = |p: [u8; 4]| std::sync::Arc::new(RgbaImage::from_pixel(4, 4, Rgba(p)));
    let maps = Maps {
        metallic_roughness: Some(picture([0, 100, 200, 255])),
        normal: Some((picture([120, 140, 250, 255]), 0.7)),
        occlusion: Some(picture([200, 0, 0, 255])),
        emissive: Some(picture([9, 9, 90, 255])),
    };
    let bumpy = Material {
        base_color_texture: Some(picture([200, 50, 20, 128])),
        emissive: [1.0, 2.0, 3.0],
        maps,
        ..Material::default()
    };
    let mesh = |material: usize| Mesh {
        positions: (0..12)
            .map(|i| Vec3::new((i % 3) as f32, (i / 3) as f32, (i * i % 5) as f32 * 0.2))
            .collect(),
        normals: vec![Vec3::new(0.0, 0.6, 0.8); 12],
        uvs: (0..12).map(|i| Vec2::new(i as f32 / 7.0, i as f32 / 12.0)).collect(),
        colors: vec![Vec3::new(0.2, 0.9, 0.4); 12],
        triangles: (0..8).map(|i| [i, i + 1, i + 3]).collect(),
        material,
    };
    Asset { meshes: vec![mesh(0), mesh(1)], materials: vec![bumpy, Material::default()], ..Asset::default() }
}

/// Numbers of one round, in order.
struct Draw(Rng, u64);

impl Draw {
    fn new(round: u32) -> Self {
        Self(Rng::new(17, Stream::Probe, round), 0)
    }

    fn word(&mut self) -> u32 {
        self.1 += 1;
        self.0.words(self.1)[0]
    }

    fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n.max(1)
    }
}

/// A file with bits turned, bytes that mean much, pieces moved, cut off or doubled.
fn spoilt(good: &[u8], round: u32) -> Vec<u8> {
    let mut draw = Draw::new(round);
    let mut bytes = good.to_vec();
    for _ in 0..PLACES[draw.below(PLACES.len())] {
        let at = draw.below(bytes.len());
        match draw.below(8) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = [0, 0x7f, 0x80, 0xff][draw.below(4)],
            2 => bytes[at] = b"0123456789-.eE/,:[]{}\" \n"[draw.below(24)],
            3 => {
                let word =
                    [0, 1, u32::MAX, i32::MAX as u32, 0x7f80_0000, 0x7fc0_0000, 0xff7f_ffff][draw.below(7)];
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
            4 => bytes.truncate(at.max(1)),
            5 => {
                let piece = bytes[at..(at + draw.below(40)).min(bytes.len())].to_vec();
                let to = draw.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            6 => drop(bytes.drain(at..(at + draw.below(12)).min(bytes.len()))),
            _ => number(&mut bytes, at, &mut draw),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Another number in place of the next one written in digits.
fn number(bytes: &mut Vec<u8>, from: usize, draw: &mut Draw) {
    let Some(start) = bytes[from..].iter().position(u8::is_ascii_digit).map(|i| i + from) else { return };
    let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |i| i + start);
    let words = [
        "0",
        "-1",
        "1",
        "255",
        "65536",
        "4294967295",
        "99999999999999999999",
        "1e39",
        "-0.0",
        "5126",
        "5121",
    ];
    bytes.splice(start..end, words[draw.below(words.len())].bytes());
}

/// What every asset that was read must satisfy; and it can be drawn.
fn check(asset: &Asset) {
    assert!(asset.triangle_count() > 0);
    for mesh in &asset.meshes {
        let n = mesh.positions.len();
        assert!(mesh.positions.iter().all(|p| p.is_finite()));
        assert!(mesh.triangles.iter().flatten().all(|i| (*i as usize) < n));
        for length in [mesh.normals.len(), mesh.uvs.len(), mesh.colors.len()] {
            assert!(length == 0 || length == n);
        }
        assert!(mesh.material < asset.materials.len());
    }
    let style = Style {
        view: View::Shaded,
        light: Illumination::Flat,
        exposure: 1.0,
        tone: gen3d::render::material::Tone::None,
        background: None,
        samples: 1,
    };
    let lens = Lens { width: 8, height: 8, fov: 40.0 };
    let camera = lens.camera(&Eye { azimuth: 20.0, elevation: 20.0, distance: None });
    let picture = Show::new(asset).picture(&camera, &style);
    assert_eq!(picture.dimensions(), (8, 8));
}

/// Reads spoilt copies of `good`; says which round broke what.
fn rounds(good: &[u8], read: impl Fn(&[u8]) -> gen3d::Result<Asset>) {
    check(&read(good).unwrap());
    let seconds = std::env::var("GEN3D_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let end = seconds.map(|s| Instant::now() + Duration::from_secs(s));
    let (mut round, mut usable) = (0u32, 0u32);
    while end.map_or(round < DEFAULT_ROUNDS, |end| Instant::now() < end) {
        let bytes = spoilt(good, round);
        let outcome = catch_unwind(AssertUnwindSafe(|| match read(&bytes) {
            Ok(asset) => {
                check(&asset);
                true
            }
            Err(e) => {
                assert!(!e.to_string().is_empty());
                false
            }
        }));
        match outcome {
            Ok(read) => usable += u32::from(read),
            Err(_) => {
                let path = std::env::temp_dir().join(format!("gen3d-fuzz-{round}"));
                std::fs::write(&path, &bytes).unwrap();
                panic!("round {round}: the file is {}", path.display());
            }
        }
        round += 1;
    }
    eprintln!("{round} rounds, {usable} of them readable");
    assert!(usable > round / 100, "mutations are too strong to test more than the first check");
}

#[test]
fn spoilt_glb() {
    rounds(&glb::write(&good(), &Delivery::default()).unwrap(), from_gltf_bytes);
}

#[test]
fn spoilt_quantized_glb() {
    let delivery = Delivery { levels: &[], quantize: true };
    rounds(&glb::write(&good(), &delivery).unwrap(), from_gltf_bytes);
}

#[test]
fn spoilt_obj() {
    let files = obj_out::to_files(&good(), "x").unwrap();
    // Polygons, negative indices and lines, beside what our own writer writes.
    let more = "\ng more\nv 0 0 9 1 0 0\nv 1 0 9 0 1 0\nv 1 1 9 0 0 1\nv 0 1 9 1 1 1\nf -4 -3 -2 -1\nl 1 2\nf 1//1 2//2 3//3\n";
    rounds((files.obj + more).as_bytes(), from_obj_bytes);
}

#[test]
fn what_old_exporters_wrote() {
    // A material without a name, as Blender 2.6 wrote it.
    let obj = "mtllib x.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl \nf 1 2 3\n";
    assert_eq!(from_obj_bytes(obj.as_bytes()).unwrap().triangle_count(), 1);
    // glTF 1.0, as JSON and in its own container, is named as such.
    let mut old = b"glTF\x01\0\0\0".to_vec();
    old.extend([99, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0]);
    for bytes in
        [old, br#"{"asset": {"version": "1.0"}, "meshes": {}}"#.to_vec(), br#"{"meshes": {}}"#.to_vec()]
    {
        let message = from_gltf_bytes(&bytes).unwrap_err().to_string();
        assert!(message.contains("glTF 1.0"), "{message}");
    }
}
