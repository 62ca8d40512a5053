use std::fs;
use std::path::Path;

use glam::{DVec3, Vec3};
use image::{DynamicImage, ImageBuffer, Rgba};
use serde_json::{Value, json};

use super::{Dataset, Up, load, write};
use crate::Result;
use crate::asset::{Asset, Material, Mesh};
use crate::render::raster::Lighting;

/// A tetrahedron away from the origin, of another size than 1.
fn model() -> Asset {
    let positions = [[4.0, 1.0, 0.0], [6.0, 1.0, 0.0], [5.0, 3.0, 0.0], [5.0, 1.5, 2.0]].map(Vec3::from);
    let mesh = Mesh {
        positions: positions.to_vec(),
        triangles: vec![[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]],
        ..Mesh::default()
    };
    let red = Material { base_color: [0.8, 0.1, 0.05, 1.0], ..Material::default() };
    Asset { meshes: vec![mesh], materials: vec![red], ..Asset::default() }
}

fn options(background: Option<Vec3>) -> write::Options {
    write::Options { views: 8, size: 24, background, lighting: Lighting::flat() }
}

#[test]
fn what_is_written_is_read_and_looks_at_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("d");
    write::write(&model(), &folder, &options(None)).unwrap();
    let data = load(&folder, Up::Z).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (8, 1));
    assert!(data.has_alpha());
    // The centroid of the model is seen, opaque and red, where the lens says.
    let centroid = DVec3::new(5.0, 1.6, 0.5);
    for view in data.train.iter().chain(&data.test) {
        let pixel = view.lens.project(view.pose.to_camera(centroid)).unwrap();
        let (color, alpha) = view.picture.at(pixel.x as u32, pixel.y as u32);
        assert_eq!(alpha, 1.0, "{}", view.path.display());
        assert!((color - Vec3::new(0.8, 0.1, 0.05)).abs().max_element() < 0.01, "{color}");
        // Nothing is cut off.
        for p in &model().meshes[0].positions {
            let pixel = view.lens.project(view.pose.to_camera(p.as_dvec3())).unwrap();
            assert!(pixel.min_element() > 0.0 && pixel.max_element() < 24.0, "{pixel}");
        }
    }
    // Again: the same bytes, in place.
    let before = fs::read(folder.join("train/003.png")).unwrap();
    let json = fs::read(folder.join("transforms.json")).unwrap();
    write::write(&model(), &folder, &options(None)).unwrap();
    assert_eq!(before, fs::read(folder.join("train/003.png")).unwrap());
    assert_eq!(json, fs::read(folder.join("transforms.json")).unwrap());
    assert_eq!(load(&folder, Up::Z).unwrap().digest(), data.digest());
    // Over a colour there is no alpha.
    write::write(&model(), &folder, &options(Some(Vec3::ONE))).unwrap();
    let opaque = load(&folder, Up::Z).unwrap();
    assert!(!opaque.has_alpha() && opaque.digest() != data.digest());
}

#[test]
fn foreign_folders_and_empty_models_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
    let e = write::write(&model(), dir.path(), &options(None)).unwrap_err();
    assert!(e.is_usage() && e.hint_text().is_some(), "{e}");
    let folder = dir.path().join("d");
    assert!(write::write(&Asset::default(), &folder, &options(None)).unwrap_err().is_usage());
    assert!(!folder.exists());
}

/// A folder with one 8×6 picture in several guises and one frame, changed by `edit`.
fn one(edit: impl FnOnce(&mut Value, &Path)) -> (tempfile::TempDir, Result<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    let picture = ImageBuffer::from_pixel(8, 6, Rgba([200u8, 100, 50, 255]));
    let picture = DynamicImage::ImageRgba8(picture);
    picture.save(dir.path().join("a.png")).unwrap();
    picture.to_rgb8().save(dir.path().join("b.jpg")).unwrap();
    let deep = ImageBuffer::from_pixel(8, 6, Rgba([51_400u16, 25_700, 12_850, 65_535]));
    DynamicImage::ImageRgba16(deep).save(dir.path().join("deep.png")).unwrap();
    let mut value = json!({ "fl_x": 10.0, "frames": [{ "file_path": "./a", "transform_matrix":
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]] }] });
    edit(&mut value, dir.path());
    fs::write(dir.path().join("transforms.json"), value.to_string()).unwrap();
    let read = load(dir.path(), Up::Y);
    (dir, read)
}

#[test]
fn paths_and_picture_formats() {
    for name in ["a", "./a.png", "a.png", "b", "b.jpg", "deep.png", ".\\deep"] {
        let (_dir, data) = one(|v, _| v["frames"][0]["file_path"] = name.into());
        let view = &data.unwrap().train[0];
        let [r, g, b, a] = view.picture.rgba[9];
        let near = |x: u8, y: u8| x.abs_diff(y) <= 3;
        assert!(near(r, 200) && near(g, 100) && near(b, 50) && a == 255, "{name}");
        assert_eq!((view.lens.width, view.lens.height), (8, 6));
    }
    let (_dir, data) = one(|v, dir| v["frames"][0]["file_path"] = dir.join("a.png").to_str().into());
    assert_eq!(data.unwrap().train.len(), 1);
}

#[test]
fn intrinsics_in_their_spellings() {
    let lens = |edit: fn(&mut Value)| {
        let (_dir, data) = one(|v, _| edit(v));
        data.unwrap().train[0].lens
    };
    let plain = lens(|_| ());
    assert_eq!((plain.focal.to_array(), plain.center.to_array()), ([10.0, 10.0], [4.0, 3.0]));
    // Found at twice the size.
    let halved = lens(|v| {
        v["w"] = 16.into();
        v["h"] = 12.into();
        v["fl_y"] = 22.0.into();
        v["cx"] = 7.0.into();
    });
    assert_eq!((halved.focal.to_array(), halved.center.to_array()), ([5.0, 11.0], [3.5, 3.0]));
    let angle = lens(|v| {
        v["fl_x"] = Value::Null;
        v["camera_angle_x"] = (2.0 * 0.4f64.atan()).into();
    });
    assert!((angle.focal.x - 10.0).abs() < 1e-9);
    // The frame's own come first.
    let own = lens(|v| v["frames"][0]["fl_x"] = 12.0.into());
    assert_eq!(own.focal.x, 12.0);
}

#[test]
fn rotations_are_made_exact_and_scales_taken_out() {
    let (_dir, data) = one(|v, _| {
        v["frames"][0]["transform_matrix"] = json!([[0, 0, 2.0, 5], [2.001, 0, 0, 6], [0, 1.999, 0.002, 7]]);
    });
    let pose = data.unwrap().train[0].pose;
    let error = pose.rotation.transpose() * pose.rotation - glam::DMat3::IDENTITY;
    assert!(error.to_cols_array().iter().all(|e| e.abs() < 1e-12));
    assert_eq!(pose.position, DVec3::new(5.0, 6.0, 7.0));
    assert!((pose.forward() - DVec3::NEG_X).length() < 2e-3);
}

#[test]
fn broken_datasets_are_named_with_a_hint() {
    let matrix = |m: Value| move |v: &mut Value, _: &Path| v["frames"][0]["transform_matrix"] = m;
    let set = |key: &'static str, to: Value| move |v: &mut Value, _: &Path| v[key] = to;
    type Edit = Box<dyn FnOnce(&mut Value, &Path)>;
    let cases: Vec<(Edit, &str)> = vec![
        (Box::new(|v, _| v["frames"][0]["file_path"] = "c".into()), "`c` does not exist"),
        (Box::new(|_, d| fs::write(d.join("a.png"), b"\x89PNG").unwrap()), "not a readable picture"),
        (
            Box::new(|_, d| {
                let whole = fs::read(d.join("a.png")).unwrap();
                fs::write(d.join("a.png"), &whole[..whole.len() - 20]).unwrap();
            }),
            "not a readable picture",
        ),
        (Box::new(matrix(json!([[1, 0, 0, 0]]))), "1 rows"),
        (Box::new(matrix(json!([[1, 0, 0], [0, 1, 0], [0, 0, 1]]))), "not 4 numbers"),
        (Box::new(matrix(json!([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, null]]))), "holds null"),
        (Box::new(matrix(json!([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1e12]]))), "holds 1"),
        (Box::new(matrix(json!([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))), "rotation"),
        (Box::new(matrix(json!([[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))), "rotation"),
        (Box::new(matrix(json!([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))), "rotation"),
        (Box::new(set("fl_x", Value::Null)), "no focal length"),
        (Box::new(set("fl_x", json!("10"))), "`fl_x` is not a number"),
        (Box::new(set("fl_x", json!(-3.0))), "focal length"),
        (Box::new(set("camera_angle_x", json!(40.0))), "camera_angle_x"),
        (Box::new(set("w", json!(80))), "8 × 6 pixels"),
        (Box::new(set("cx", json!(1e6))), "principal point"),
        (Box::new(set("k1", json!(50.0))), "distortion"),
        (Box::new(set("camera_model", json!("OPENCV_FISHEYE"))), "FISHEYE"),
        (Box::new(set("frames", json!([]))), "0 frames"),
        (Box::new(set("frames", json!({}))), "no list `frames`"),
    ];
    for (edit, parts) in cases {
        let (_dir, read) = one(edit);
        let e = read.expect_err(parts);
        assert!(parts.split('|').all(|p| e.to_string().contains(p)), "{parts}: {e}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(load(&dir.path().join("x"), Up::Z).unwrap_err().hint_text().is_some());
    assert!(load(dir.path(), Up::Z).unwrap_err().to_string().contains("no transforms.json"));
    fs::write(dir.path().join("transforms.json"), "{\"frames\": [NaN]}").unwrap();
    let e = load(dir.path(), Up::Z).unwrap_err();
    assert!(e.to_string().contains("not JSON") && e.hint_text().unwrap().contains("NaN"));
}

#[test]
fn every_eighth_frame_is_held_out_and_empty_pictures_are_refused() {
    let (_dir, data) = one(|v, _| {
        let frame = v["frames"][0].clone();
        v["frames"] = Value::Array(vec![frame; 17]);
    });
    let data = data.unwrap();
    assert_eq!((data.train.len(), data.test.len()), (15, 2));
    let (_dir, read) = one(|_, d| {
        let clear = ImageBuffer::from_pixel(8, 6, Rgba([200u8, 100, 50, 0]));
        clear.save(d.join("a.png")).unwrap();
    });
    assert!(read.unwrap_err().to_string().contains("every picture is empty"));
}
