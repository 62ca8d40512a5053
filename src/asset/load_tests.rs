//! Readers against files written by hand, and against damage.

use std::{fs, io::Cursor, path::Path};

use glam::{Vec2, Vec3};
use image::{ImageFormat, Rgba, RgbaImage};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Asset, Mesh, from_gltf_bytes, load, load::parse, normalize, normals};
use crate::error::Error;

/// A GLB of a JSON and a binary chunk.
fn glb(json: &Value, bin: &[u8]) -> Vec<u8> {
    let mut text = json.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(4), b' ');
    let mut data = bin.to_vec();
    data.resize(data.len().next_multiple_of(4), 0);
    let mut bytes = b"glTF".to_vec();
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend((28 + text.len() as u32 + data.len() as u32).to_le_bytes());
    for (kind, chunk) in [(b"JSON", &text), (b"BIN\0", &data)] {
        bytes.extend((chunk.len() as u32).to_le_bytes());
        bytes.extend(kind);
        bytes.extend(chunk);
    }
    bytes
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The unit square in z = 0, four vertices.
const SQUARE: [f32; 12] = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0];

/// A document with the square as buffer view 0 and one accessor; more can be put in.
fn square(change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> Vec<u8> {
    let mut bin = floats(&SQUARE);
    let mut json = json!({
        "asset": {"version": "2.0", "extras": {"prompt": "a square"}},
        "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 6}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3",
                       "min": [0, 0, 0], "max": [1, 1, 0]}],
        "bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": 48}],
        "buffers": [{"byteLength": 48}],
    });
    change(&mut json, &mut bin);
    json["buffers"][0]["byteLength"] = bin.len().into();
    glb(&json, &bin)
}

/// Appends data with a buffer view and an accessor; gives the accessor's number.
fn attach(json: &mut Value, bin: &mut Vec<u8>, data: &[u8], accessor: Value) -> usize {
    let view = view(json, bin, data);
    let list = json["accessors"].as_array_mut().unwrap();
    list.push(accessor);
    let number = list.len() - 1;
    list[number]["bufferView"] = view.into();
    number
}

fn view(json: &mut Value, bin: &mut Vec<u8>, data: &[u8]) -> usize {
    bin.resize(bin.len().next_multiple_of(4), 0);
    let list = json["bufferViews"].as_array_mut().unwrap();
    list.push(json!({"buffer": 0, "byteOffset": bin.len(), "byteLength": data.len()}));
    bin.extend(data);
    list.len() - 1
}

fn picture(format: ImageFormat, alpha: u8) -> Vec<u8> {
    let image = RgbaImage::from_fn(2, 2, |x, y| Rgba([x as u8 * 200, y as u8 * 200, 0, alpha]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A square with everything this reader knows: indices, colours, coordinates, a picture.
fn rich() -> Vec<u8> {
    square(|json, bin| {
        let uvs = attach(
            json,
            bin,
            &floats(&[0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
            json!({"componentType": 5126, "count": 4, "type": "VEC2"}),
        );
        let colors = attach(
            json,
            bin,
            &[255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 51, 51, 51, 255],
            json!({"componentType": 5121, "normalized": true, "count": 4, "type": "VEC4"}),
        );
        let order: Vec<u8> = [0_u16, 1, 2, 0, 2, 3].iter().flat_map(|i| i.to_le_bytes()).collect();
        let indices = attach(json, bin, &order, json!({"componentType": 5123, "count": 6, "type": "SCALAR"}));
        let png = view(json, bin, &picture(ImageFormat::Png, 100));
        json["images"] = json!([{"bufferView": png, "mimeType": "image/png"}]);
        json["textures"] = json!([{"source": 0}]);
        json["materials"] = json!([{
            "name": "paint", "doubleSided": true, "emissiveFactor": [0.1, 0.2, 0.3],
            "pbrMetallicRoughness": {
                "baseColorFactor": [0.5, 0.6, 0.7, 0.8], "metallicFactor": 0.25, "roughnessFactor": 0.75,
                "baseColorTexture": {"index": 0, "extensions": {"KHR_texture_transform": {"offset": [0.5, 0.0], "scale": [2.0, 4.0]}}},
            },
        }]);
        json["meshes"][0]["primitives"][0] = json!({
            "attributes": {"POSITION": 0, "TEXCOORD_0": uvs, "COLOR_0": colors}, "indices": indices, "material": 0,
        });
    })
}

fn read(bytes: &[u8]) -> Asset {
    from_gltf_bytes(bytes).unwrap()
}

/// Twice the area vector of all triangles.
fn area(mesh: &Mesh) -> Vec3 {
    mesh.triangles
        .iter()
        .map(|t| t.map(|i| mesh.positions[i as usize]))
        .map(|[a, b, c]| (b - a).cross(c - a))
        .sum()
}

#[test]
fn attributes_and_material_arrive() {
    let asset = read(&rich());
    let (mesh, material) = (&asset.meshes[0], &asset.materials[0]);
    assert_eq!((area(mesh), mesh.triangles.len()), (Vec3::Z * 2.0, 2));
    assert!(mesh.normals.iter().all(|n| *n == Vec3::Z), "made, flat");
    // offset + scale · (1, 1), and the colour of the same vertex.
    let corner = mesh.positions.iter().position(|p| *p == Vec3::X).unwrap();
    assert_eq!((mesh.uvs[corner], mesh.colors[corner]), (Vec2::new(2.5, 4.0), Vec3::Y));
    let grey = mesh.positions.iter().position(|p| *p == Vec3::Y).unwrap();
    assert_eq!(mesh.colors[grey], Vec3::splat(0.2));
    assert_eq!((material.name.as_str(), material.double_sided), ("paint", true));
    assert_eq!((material.metallic, material.roughness, material.emissive), (0.25, 0.75, [0.1, 0.2, 0.3]));
    assert_eq!(material.base_color, [0.5, 0.6, 0.7, 1.0], "opaque: alpha is ignored");
    let texture = material.base_color_texture.as_ref().unwrap();
    assert_eq!((texture.get_pixel(1, 0).0, texture.get_pixel(0, 1).0), ([200, 0, 0, 255], [0, 200, 0, 255]));
    assert_eq!(asset.extras["prompt"], "a square");
}

#[test]
fn nodes_place_and_mirror() {
    let nodes = json!([
        {"children": [1, 2], "translation": [10, 0, 0], "rotation": [0, 0, 0.707_106_77, 0.707_106_77]},
        {"mesh": 0, "scale": [2, 1, 1]},
        {"mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
    ]);
    let asset = read(&square(|json, _| json["nodes"] = nodes));
    let bounds = |mesh: &Mesh| Asset { meshes: vec![mesh.clone()], ..Asset::default() }.bounds().unwrap();
    // A quarter turn about z takes x to y and y to −x.
    let (low, high) = bounds(&asset.meshes[0]);
    assert!(
        (low - Vec3::new(9.0, 0.0, 0.0)).length() < 1e-5
            && (high - Vec3::new(10.0, 2.0, 0.0)).length() < 1e-5
    );
    let (low, high) = bounds(&asset.meshes[1]);
    assert!(
        (low - Vec3::new(9.0, -1.0, 5.0)).length() < 1e-5
            && (high - Vec3::new(10.0, 0.0, 5.0)).length() < 1e-5
    );
    // The mirrored square still faces +z: so say the normals, and the winding follows.
    for mesh in &asset.meshes {
        let mean: Vec3 = mesh.normals.iter().sum();
        assert!(area(mesh).dot(mean) > 0.0);
    }
}

#[test]
fn stored_normals_stay_perpendicular_under_uneven_scale() {
    // The plane x + y = 0 with its normal, scaled along x by 4: the normal becomes (1, 4, 0).
    let bytes = square(|json, bin| {
        *bin = floats(&[1.0, -1.0, 0.0, -1.0, 1.0, 0.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0]);
        let data = floats(&[1.0, 1.0, 0.0].repeat(4));
        let normals = attach(json, bin, &data, json!({"componentType": 5126, "count": 4, "type": "VEC3"}));
        json["meshes"][0]["primitives"][0]["attributes"]["NORMAL"] = normals.into();
        json["nodes"][0]["scale"] = json!([4, 1, 1]);
    });
    let expected = Vec3::new(1.0, 4.0, 0.0).normalize();
    assert!(read(&bytes).meshes[0].normals.iter().all(|n| (*n - expected).length() < 1e-6));
}

#[test]
fn strips_fans_and_lists_make_the_same_square() {
    for (mode, order) in
        [(4, &[0_u8, 1, 2, 0, 2, 3][..]), (5, &[0, 1, 3, 2]), (6, &[0, 1, 2, 3]), (5, &[0, 1, 3, 2, 2])]
    {
        let bytes = square(|json, bin| {
            let indices = attach(
                json,
                bin,
                order,
                json!({"componentType": 5121, "count": order.len(), "type": "SCALAR"}),
            );
            json["meshes"][0]["primitives"][0]["indices"] = indices.into();
            json["meshes"][0]["primitives"][0]["mode"] = mode.into();
        });
        let mesh = &read(&bytes).meshes[0];
        assert_eq!((area(mesh), mesh.triangles.len()), (Vec3::Z * 2.0, 2), "{order:?}");
    }
    let points = square(|json, _| json["meshes"][0]["primitives"][0]["mode"] = 0.into());
    assert!(from_gltf_bytes(&points).unwrap_err().to_string().contains("no triangles"));
}

#[test]
fn quantised_and_sparse_accessors() {
    let bytes = square(|json, bin| {
        let data: Vec<u8> = [0_i16, 0, 0, 32_767, 0, 0, 32_767, 32_767, 0, -32_768, 32_767, 0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        attach(
            json,
            bin,
            &data,
            json!({"componentType": 5122, "normalized": true, "count": 4, "type": "VEC3"}),
        );
        json["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = 1.into();
        json["extensionsRequired"] = json!(["KHR_mesh_quantization"]);
        json["extensionsUsed"] = json!(["KHR_mesh_quantization"]);
    });
    let (low, high) = read(&bytes).bounds().unwrap();
    assert_eq!((low, high), (Vec3::NEG_X, Vec3::new(1.0, 1.0, 0.0)));
    let bytes = square(|json, bin| {
        let keys = view(json, bin, &[2]);
        let values = view(json, bin, &floats(&[5.0, 6.0, 7.0]));
        json["accessors"][0]["sparse"] = json!({"count": 1, "indices": {"bufferView": keys, "componentType": 5121}, "values": {"bufferView": values}});
    });
    assert_eq!(read(&bytes).bounds().unwrap().1, Vec3::new(5.0, 6.0, 7.0));
}

#[test]
fn alpha_modes_become_what_the_house_means() {
    let material = |mode: &str, cutoff: f32| {
        let bytes = square(|json, bin| {
            let webp = view(json, bin, &picture(ImageFormat::WebP, 100));
            json["images"] = json!([{"bufferView": webp}]);
            json["textures"] = json!([{"extensions": {"EXT_texture_webp": {"source": 0}}}]);
            json["extensionsRequired"] = json!(["EXT_texture_webp"]);
            json["materials"] = json!([{"alphaMode": mode, "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.5], "baseColorTexture": {"index": 0}}}]);
            if mode == "MASK" {
                json["materials"][0]["alphaCutoff"] = cutoff.into();
            }
            json["meshes"][0]["primitives"][0]["material"] = 0.into();
        });
        let material = read(&bytes).materials.swap_remove(0);
        (material.base_color[3], material.base_color_texture.unwrap().get_pixel(0, 0)[3])
    };
    assert_eq!(material("OPAQUE", 0.0), (1.0, 255));
    assert_eq!(material("BLEND", 0.0), (0.5, 100));
    // 100 / 255 · 0.5 = 0.196
    assert_eq!(material("MASK", 0.19), (1.0, 255));
    assert_eq!(material("MASK", 0.20), (1.0, 0));
}

#[test]
fn text_gltf_finds_what_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut json = json!({
        "asset": {"version": "2.0"}, "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 36, "uri": "my%20data.bin"}],
    });
    let path = folder.path().join("a.gltf");
    fs::write(&path, json.to_string()).unwrap();
    let error = load(&path).unwrap_err();
    assert!(error.to_string().contains("my data.bin") && error.hint_text().is_some(), "{error}");
    fs::write(folder.path().join("my data.bin"), floats(&SQUARE[..9])).unwrap();
    assert_eq!(load(&path).unwrap().triangle_count(), 1);
    // 36 zero bytes in base64: positions that are all equal, but a triangle.
    json["buffers"][0]["uri"] = format!("data:application/octet-stream;base64,{}", "A".repeat(48)).into();
    fs::write(&path, json.to_string()).unwrap();
    assert_eq!(load(&path).unwrap().bounds(), Some((Vec3::ZERO, Vec3::ZERO)));
}

#[test]
fn unusable_files_say_why() {
    let change = |pointer: &'static str, value: Value| {
        square(move |json, _| *json.pointer_mut(pointer).unwrap() = value)
    };
    let whole = rich();
    let nan = square(|_, bin| bin[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let far = square(|_, bin| bin[..4].copy_from_slice(&1e30_f32.to_le_bytes()));
    let index = square(|json, bin| {
        let indices =
            attach(json, bin, &[0, 1, 9], json!({"componentType": 5121, "count": 3, "type": "SCALAR"}));
        json["meshes"][0]["primitives"][0] = json!({"attributes": {"POSITION": 0}, "indices": indices});
    });
    let broken_picture = square(|json, bin| {
        let junk = view(json, bin, &[1, 2, 3]);
        json["images"] = json!([{"bufferView": junk, "mimeType": "image/png"}]);
        json["textures"] = json!([{"source": 0}]);
        json["materials"] = json!([{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]);
    });
    let no_picture = square(|json, _| {
        json["images"] = json!([{"name": "nothing"}]);
        json["textures"] = json!([{"source": 0}]);
        json["materials"] = json!([{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]);
    });
    let draco = square(|json, _| json["extensionsRequired"] = json!(["KHR_draco_mesh_compression"]));
    let no_data = square(|json, _| _ = json["accessors"][0].as_object_mut().unwrap().remove("bufferView"));
    let cycle = square(|json, _| json["nodes"] = json!([{"children": [1]}, {"children": [0]}]));
    let overflow = square(|json, _| json["bufferViews"][0]["byteOffset"] = json!(u64::MAX - 7));
    let cases: [(&str, &[u8], &str); 21] = [
        ("empty", &[], "empty"),
        ("text", b"hello, I am no model", "not glTF"),
        ("other JSON", b"{\"a\": 1}", "no asset.version"),
        ("header", &whole[..10], "truncated"),
        ("half", &whole[..whole.len() / 2], "truncated"),
        ("tiny length", b"glTF\x02\0\0\0\x04\0\0\0xxxxyyyyzzzz", "header claims 4"),
        ("NaN", &nan, "vertex 0 is not a finite number"),
        ("far", &far, "too far"),
        ("index", &index, "index 9 is out of range"),
        ("picture", &broken_picture, "image 0"),
        ("no picture", &no_picture, "image 0: it has no data"),
        ("draco", &draco, "KHR_draco"),
        ("no data", &no_data, "bufferView: Missing"),
        ("cycle", &cycle, "two parents"),
        ("overflow", &overflow, "beyond its buffer"),
        ("count", &change("/accessors/0/count", json!(5)), "beyond its buffer"),
        ("huge count", &change("/accessors/0/count", json!(4_000_000_000_u32)), "claims 4000000000"),
        ("type", &change("/accessors/0/type", json!("SCALAR")), "3 components are needed"),
        ("view", &change("/bufferViews/0/byteLength", json!(999)), "beyond its buffer"),
        (
            "no such accessor",
            &change("/meshes/0/primitives/0/attributes/POSITION", json!(7)),
            "accessor 7, which is not there",
        ),
        ("no such mesh", &change("/nodes/0/mesh", json!(7)), "invalid glTF"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, expected) in cases {
        let path = folder.path().join("a.glb");
        fs::write(&path, bytes).unwrap();
        let text = load(&path).map(|a| a.triangle_count()).unwrap_err().to_string();
        assert!(text.contains(expected) && text.contains("a.glb"), "{name}: {text}");
    }
    assert!(matches!(load(Path::new("/nonexistent/a.glb")), Err(Error::Io { .. })));
    assert!(load(Path::new("a.fbx")).unwrap_err().hint_text().unwrap().contains(".glb"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(cut in 0.0..1.2_f64, flips in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 0..6), obj in any::<bool>()) {
        let (mut bytes, extension) = if obj { (OBJ.as_bytes().to_vec(), "obj") } else { (rich(), "glb") };
        let last = bytes.len() as f64;
        for (at, value) in flips {
            bytes[(at * last) as usize] = value;
        }
        bytes.truncate((cut * last) as usize);
        if let Ok(asset) = parse(&bytes, extension, None) {
            prop_assert!(asset.bounds().is_some());
        }
    }

    /// Numbers in the JSON are where a file lies best: any of them replaced by an unlikely one.
    #[test]
    fn lying_numbers_never_panic(place in 0.0..1.0_f64, choice in 0_usize..7) {
        let bytes = rich();
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let mut json: Value = serde_json::from_slice(&bytes[20..20 + length]).unwrap();
        let mut numbers = Vec::new();
        collect(&mut json, &mut numbers);
        let count = numbers.len();
        let lie = [json!(0), json!(-1), json!(1), json!(7), json!(u32::MAX), json!(u64::MAX), json!(1e300)][choice].clone();
        *numbers.swap_remove((place * count as f64) as usize) = lie;
        _ = from_gltf_bytes(&glb(&json, &bytes[28 + length..]));
    }
}

fn collect<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
    match value {
        Value::Number(_) => found.push(value),
        Value::Array(list) => list.iter_mut().for_each(|v| collect(v, found)),
        Value::Object(map) => map.values_mut().for_each(|v| collect(v, found)),
        _ => {}
    }
}

const OBJ: &str = "# a box's lid and side\nmtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 1 -1\nv 1 1 -1\n\
    vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\no side\nusemtl red\nf 1/1 2/2 3/3 4/4\ng lid\nusemtl pic\nf -3/1 -4/2 -1/3 -2/4\n";

#[test]
fn obj_with_materials() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.obj");
    fs::write(&path, OBJ).unwrap();
    let plain = load(&path).unwrap();
    assert_eq!(plain.triangle_count(), 4);
    assert!(plain.meshes.iter().all(|m| m.material == 0), "no material file: the default");
    // Bytes that are no UTF-8, a colour cut short, a missing picture, then a good one.
    let mtl: &[u8] = b"# gr\xfcn\nnewmtl red\nKd 1 0\nKd 1 0 0.5\nd 0.5\nNs 0\nnewmtl pic\nKd 0 0 0\nmap_Kd -s 1 1 1 t.png\n";
    fs::write(folder.path().join("a.mtl"), mtl).unwrap();
    let gone = load(&path).unwrap();
    assert_eq!(gone.materials[1].base_color, [0.0, 0.0, 0.0, 1.0]);
    fs::write(folder.path().join("t.png"), picture(ImageFormat::Png, 255)).unwrap();
    let asset = load(&path).unwrap();
    let (red, pic) = (&asset.materials[0], &asset.materials[1]);
    assert!((red.base_color[2] - 0.214_04).abs() < 1e-4 && red.base_color[3] == 0.5 && red.roughness == 1.0);
    assert!(pic.base_color_texture.is_some() && pic.base_color == [1.0; 4]);
    assert_eq!(asset.meshes[1].material, 1);
    // The side faces +z, the lid up; OBJ's v runs up, ours down.
    assert_eq!((area(&asset.meshes[0]), area(&asset.meshes[1])), (Vec3::Z * 2.0, Vec3::Y * 2.0));
    assert!(asset.meshes[0].normals.iter().all(|n| *n == Vec3::Z));
    let origin = asset.meshes[0].positions.iter().position(|p| *p == Vec3::ZERO).unwrap();
    assert_eq!(asset.meshes[0].uvs[origin], Vec2::Y);
    for (text, reason) in [
        ("v 0 0\n", "position"),
        ("v 0 0 0\nf 1 2 3\n", "out of bounds"),
        ("just words\n", "no triangles"),
        ("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "finite"),
    ] {
        fs::write(&path, text).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn creases_split_and_curves_smooth() {
    // A roof: two unit squares that meet at the given angle between their normals.
    let roof = |degrees: f32| {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let mut mesh = Mesh {
            positions: vec![
                Vec3::Z,
                Vec3::ZERO,
                Vec3::X,
                Vec3::new(1.0, 0.0, 1.0),
                Vec3::new(0.0, sin, -cos),
                Vec3::new(1.0, sin, -cos),
            ],
            triangles: vec![[0, 2, 1], [0, 3, 2], [1, 2, 5], [1, 5, 4]],
            ..Mesh::default()
        };
        normals::generate(&mut mesh, 45.0);
        mesh
    };
    assert_eq!(roof(60.0).positions.len(), 8, "two flat squares");
    let smooth = roof(30.0);
    assert_eq!(smooth.positions.len(), 6);
    let ridge = smooth.positions.iter().position(|p| *p == Vec3::X).unwrap();
    // Triangles at the ridge's end: two of the first square, one of the second, all of equal area.
    let face = Vec3::new(0.0, 30_f32.to_radians().cos(), 30_f32.to_radians().sin());
    let count = |t: &[[u32; 3]]| t.iter().filter(|t| t.contains(&(ridge as u32))).count() as f32;
    let expected =
        (Vec3::Y * count(&smooth.triangles[..2]) + face * count(&smooth.triangles[2..])).normalize();
    assert!((smooth.normals[ridge] - expected).length() < 1e-5, "{} for {expected}", smooth.normals[ridge]);
}

#[test]
fn normalised_assets_are_centred_and_sized() {
    let mut asset = read(&square(|_, bin| *bin = floats(&SQUARE.map(|v| v * 30.0 + 7.0))));
    normalize(&mut asset, 1.2);
    let (low, high) = asset.bounds().unwrap();
    assert!((high - low - Vec3::new(1.2, 1.2, 0.0)).length() < 1e-5 && (low + high).length() < 1e-5);
    normalize(&mut Asset::default(), 1.2);
}
