//! Writing an asset to disk: complete or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::glb::Delivery;
use super::{Asset, ExportOptions, glb, hull, lod, obj_out, ply, usd_out};
use crate::{Error, Result};

/// [`save_with`] of the asset alone.
///
/// # Errors
/// As [`save_with`].
pub fn save(asset: &Asset, path: &Path) -> Result<()> {
    save_with(asset, path, &ExportOptions::default()).map(drop)
}

/// Writes `.glb`, `.obj` (with `<stem>.mtl` and `<stem>_<n>.png` beside it, blanks replaced by `_`), `.ply` or
/// `.usda` (with `<stem>_<n>.png`), by the extension, and what `options` ask for. Each file is written under a
/// temporary name in the same folder, flushed to the disk and renamed: whatever was there stays whole until then.
/// Companions come before the file itself. Returns the companions that are models.
///
/// # Errors
/// [`Error::Invalid`] for an unknown extension or an unusable asset, [`Error::Io`] if a file
/// cannot be written.
pub fn save_with(asset: &Asset, path: &Path, options: &ExportOptions) -> Result<Vec<PathBuf>> {
    options.validate()?;
    let levels = lod::chain(asset, options.lods);
    let is_glb = extension(path) == "glb";
    let mut companions = Vec::new();
    if options.lod_files || !is_glb {
        for (i, level) in levels.iter().enumerate() {
            let beside = companion(path, &format!("lod{}", i + 1));
            write(level, &beside, &Delivery { levels: &[], quantize: options.quantize })?;
            companions.push(beside);
        }
    }
    if options.collision {
        let beside = companion(path, "collision");
        write(&hull::convex_hull(asset)?, &beside, &Delivery::default())?;
        companions.push(beside);
    }
    let inside: &[Asset] = if options.lod_files { &[] } else { &levels };
    write(asset, path, &Delivery { levels: inside, quantize: options.quantize })?;
    Ok(companions)
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// `jay.glb` → `jay_<what>.glb`.
fn companion(path: &Path, what: &str) -> PathBuf {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!("{}_{what}.{}", text(path.file_stem()), text(path.extension())))
}

fn write(asset: &Asset, path: &Path, delivery: &Delivery<'_>) -> Result<()> {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("asset");
    match extension(path).as_str() {
        "glb" => replace(path, &glb::write(asset, delivery)?),
        "ply" => replace(path, &ply::to_bytes(asset)?),
        "usda" => {
            let files = usd_out::to_files(asset, stem)?;
            for (name, bytes) in &files.textures {
                replace(&path.with_file_name(name), bytes)?;
            }
            replace(path, files.usda.as_bytes())
        }
        "obj" => {
            let files = obj_out::to_files(asset, stem)?;
            for (name, bytes) in &files.textures {
                replace(&path.with_file_name(name), bytes)?;
            }
            replace(&path.with_file_name(&files.mtl.0), files.mtl.1.as_bytes())?;
            replace(path, files.obj.as_bytes())
        }
        other => Err(Error::invalid(
            path.display().to_string(),
            format!("`.{other}` is not a model format that can be written"),
        )
        .hint("end the name in .glb, .obj, .ply or .usda")),
    }
}

/// Puts `bytes` at `path` in one step.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: io::Error| explain(path, e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".gen3d-").suffix(".part");
    // Temporary files are private by default; the product gets what the umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn explain(path: &Path, source: io::Error) -> Error {
    let hint = match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "create the folder first, or choose another"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a folder you may write to"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space on the disk",
        io::ErrorKind::IsADirectory => "choose a name that is not a folder",
        _ => "check that the folder exists and can be written to",
    };
    Error::io(path, source).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use glam::{Vec2, Vec3};
    use image::RgbaImage;

    use super::*;
    use crate::asset::{Material, Mesh, load};

    fn triangle() -> Asset {
        let part = Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::Y],
            normals: vec![Vec3::Z; 3],
            uvs: vec![Vec2::new(0.1, 0.2), Vec2::new(0.9, 0.2), Vec2::new(0.1, 0.7)],
            colors: vec![Vec3::X, Vec3::Y, Vec3::Z],
            triangles: vec![[0, 1, 2]],
            material: 0,
        };
        let picture = RgbaImage::from_pixel(8, 8, image::Rgba([10, 200, 30, 255]));
        let material = Material {
            base_color: [1.0, 0.5, 0.25, 1.0],
            base_color_texture: Some(Arc::new(picture)),
            roughness: 0.375,
            ..Default::default()
        };
        Asset { meshes: vec![part], materials: vec![material], ..Default::default() }
    }

    #[test]
    fn obj_and_glb_come_back_and_leave_no_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        let asset = triangle();
        for name in ["my  jay.obj", "jay.GLB"] {
            let path = folder.path().join(name);
            save(&asset, &path).unwrap();
            let back = load(&path).unwrap();
            let (a, b) = (&asset.meshes[0], &back.meshes[0]);
            assert_eq!((&a.positions, &a.normals, &a.triangles), (&b.positions, &b.normals, &b.triangles));
            assert!(a.uvs.iter().zip(&b.uvs).all(|(p, q)| (*p - *q).length() < 1e-6));
            assert!(a.colors.iter().zip(&b.colors).all(|(p, q)| (*p - *q).length() < 1e-5));
            let look = &back.materials[b.material];
            assert_eq!(look.base_color_texture, asset.materials[0].base_color_texture);
            assert!((look.base_color[1] - 0.5).abs() < 1e-5);
            assert_eq!(look.roughness, 0.375);
        }
        save(&asset, &folder.path().join("jay.ply")).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["jay.GLB", "jay.ply", "my  jay.obj", "my__jay.mtl", "my__jay_0.png"]);
    }

    #[test]
    fn unknown_extensions_missing_folders_and_folders_in_the_way_have_hints() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("taken.glb");
        fs::create_dir_all(blocked.join("inside")).unwrap();
        for path in [folder.path().join("jay.step"), folder.path().join("no/such/jay.glb"), blocked] {
            let error = save(&triangle(), &path).unwrap_err();
            assert!(error.hint_text().is_some(), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let full = explain(Path::new("x.glb"), io::Error::from(io::ErrorKind::StorageFull));
        assert!(full.hint_text().unwrap().contains("space"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jay.glb");
        save(&triangle(), &path).unwrap();
        let before = fs::read(&path).unwrap();
        let mut broken = triangle();
        broken.meshes[0].triangles[0][0] = 77;
        assert!(save(&broken, &path).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
