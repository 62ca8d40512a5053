use super::surface::signed_volume6;
use super::*;

fn one(part: &str) -> String {
    format!("names = [\"thing\"]\ncategory = \"object\"\nparts = [{{ color = \"red\", {part} }}]\n")
}

fn volume(part: &str) -> f32 {
    let recipe = Recipe::parse(&one(part)).unwrap();
    let pieces = build::pieces(&recipe.doc, 0).unwrap();
    pieces.iter().map(|p| signed_volume6(&p.mesh.positions, &p.mesh.triangles) / 6.0).sum()
}

#[test]
fn primitives_have_their_closed_form_volumes() {
    use std::f32::consts::PI;
    // Inscribed polyhedra: below the smooth volume by O(1/n²), a few percent at these n.
    let cases = [
        ("shape = \"ellipsoid\", size = [1, 2, 0.5], detail = 4", PI / 6.0),
        ("shape = \"box\", size = [1, 2, 3]", 6.0),
        ("shape = \"box\", size = [2, 3, 2], top = 0", 4.0),
        ("shape = \"cylinder\", size = [2, 3, 2], detail = 4", 3.0 * PI),
        ("shape = \"cone\", size = [2, 3, 2], detail = 4", PI),
        ("shape = \"capsule\", size = [1, 2, 1], detail = 4", PI * 0.25 + PI / 6.0),
        ("shape = \"torus\", size = [2, 0.5, 2], tube = 0.25, detail = 4", 2.0 * PI * PI * 0.75 * 0.0625),
        ("shape = \"lathe\", profile = [[1, 0], [1, 2]], detail = 4", 2.0 * PI),
        ("shape = \"lathe\", profile = [[1, 2], [1, 0]], detail = 4", 2.0 * PI),
        ("shape = \"tube\", points = [[0,0,0],[0,3,0]], radius = 1, round = 0, detail = 4", 3.0 * PI),
        ("shape = \"blade\", outline = [[0,0],[2,0],[2,1],[1,0.5],[0,1]], thick = 0.5", 0.75),
        ("shape = \"box\", size = 1, mirror = \"x\", at = [3, 0, 0]", 2.0),
        ("shape = \"box\", size = 1, scale = [-1, 1, 1]", 1.0),
        ("shape = \"box\", size = 0.5, repeat = { ring = 8, radius = 3 }", 1.0),
    ];
    for (part, expected) in cases {
        let v = volume(part);
        assert!((v / expected - 1.0).abs() < 0.02, "{part}: {v} not {expected}");
    }
    let rounded = volume("shape = \"box\", size = 1, round = 0.5, detail = 4");
    assert!(rounded > 0.8 * PI / 6.0 && rounded < PI / 6.0, "{rounded}");
}

#[test]
fn normals_point_outwards_and_edges_stay_hard() {
    let asset = Recipe::parse(&one("shape = \"box\", size = 1")).unwrap().build(0).unwrap();
    let mesh = &asset.meshes[0];
    assert_eq!(mesh.positions.len(), 24);
    for (p, n) in mesh.positions.iter().zip(&mesh.normals) {
        assert!((n.abs().max_element() - 1.0).abs() < 1e-5 && n.dot(*p) > 0.4);
    }
    let asset = Recipe::parse(&one("shape = \"ellipsoid\", size = 2")).unwrap().build(0).unwrap();
    let mesh = &asset.meshes[0];
    for (p, n) in mesh.positions.iter().zip(&mesh.normals) {
        assert!(n.dot(*p) > 0.98, "{n} at {p}");
    }
}

#[test]
fn builds_depend_on_the_seed_alone() {
    let text = "names = [\"ball\"]\ncategory = \"toy\"\n[params]\nw = [0.5, 1.5]\n[palette]\nc = [\"red\", \"blue\"]\n\
        [[variants]]\nword = \"red\"\ncolors = { c = \"red\" }\n[[variants]]\nword = \"blue\"\ncolors = { c = \"blue\" }\n\
        [[parts]]\nshape = \"ellipsoid\"\nsize = \"$w\"\ncolor = \"c\"\nrepeat = { line = 3, step = [2,0,0], jitter = [0.1, 10, 0.1] }\n";
    let recipe = Recipe::parse(text).unwrap();
    let look = |seed| {
        let a = recipe.build(seed).unwrap();
        (a.meshes[0].positions.clone(), a.meshes[0].colors[0])
    };
    assert_eq!(look(3), look(3));
    assert_ne!(look(3).0, look(4).0);
    let (red, blue) = (0..64).partition::<Vec<u64>, _>(|s| recipe.word(*s) == Some("red"));
    assert!(red.len() > 16 && blue.len() > 16);
    assert!(
        red.iter().all(|s| look(*s).1.x > look(*s).1.z) && blue.iter().all(|s| look(*s).1.z > look(*s).1.x)
    );
}

#[test]
fn hostile_recipes_are_refused_with_the_place() {
    let cases = [
        ("names = 3", "line 1"),
        ("nonsense = 1", "unknown field"),
        ("names = []\ncategory = \"x\"\nparts = []", "names"),
        ("names = [\"a\"]\ncategory = \"x\"\nparts = []", "no parts"),
    ];
    for (text, expected) in cases {
        let e = Recipe::parse(text).unwrap_err().to_string();
        assert!(e.contains(expected), "{e}");
    }
    let nest = "group = [{ ".repeat(40) + "shape = \"box\", size = 1" + &" }]".repeat(40);
    let parts = [
        ("shape = \"box\"", "size"),
        ("shape = \"cube\", size = 1", "line 3"),
        ("shape = \"box\", size = 1, profil = 1", "unknown field"),
        ("shape = \"box\", size = [1, 2]", "line 3"),
        ("shape = \"box\", size = \"$w\"", "part 1"),
        ("shape = \"box\", size = -1", "positive"),
        ("shape = \"box\", size = 1e9", "range"),
        ("shape = \"box\", size = nan", "range"),
        ("shape = \"box\", size = 1, radius = 1", "means nothing"),
        ("name = \"lid\", shape = \"lathe\", profile = [[-1, 0], [1, 1]]", "`lid`"),
        ("shape = \"tube\", points = [[0,0,0]], radius = 1", "points"),
        ("shape = \"tube\", points = [[0,0,0],[1,0,0]], radius = [1, 2, 3]", "3 values"),
        ("shape = \"box\", size = 1, repeat = { ring = 9000 }", "copies"),
        ("shape = \"box\", size = 1, repeat = { grid = [4000, 4000, 4000] }", "too large"),
        ("shape = \"box\", size = 1, repeat = { ring = 3, line = 3 }", "exactly one"),
        ("shape = \"blade\", outline = [[0,0],[1,1],[1,0],[0,1]], thick = 1", "crosses"),
        ("shape = \"blade\", outline = \"spork\"", "unknown outline"),
        ("shape = \"ellipsoid\", size = 1, detail = 1000", "detail"),
        (
            "repeat = { ring = 4000 }, group = [{ repeat = { ring = 4000 }, group = [{ shape = \"box\", size = 1, color = \"red\" }] }]",
            "grows beyond",
        ),
        (nest.as_str(), ""),
    ];
    for (part, expected) in parts {
        let e = Recipe::parse(&one(part)).expect_err(part).to_string();
        assert!(e.contains(expected), "{part}: {e}");
    }
}

#[test]
fn every_prop_of_the_house_is_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 45, "{} props", files.len());
    for path in files {
        let recipe = load(&path).unwrap();
        for seed in [1, 2] {
            let asset = recipe.build(seed).unwrap();
            assert!(asset.triangle_count() < 60_000, "{}: {}", recipe.stem(), asset.triangle_count());
            for mesh in &asset.meshes {
                let n = mesh.positions.len() as u32;
                assert!(mesh.normals.len() as u32 == n && mesh.colors.len() as u32 == n);
                assert!(
                    mesh.positions.iter().chain(&mesh.normals).chain(&mesh.colors).all(|v| v.is_finite())
                );
                assert!(mesh.normals.iter().all(|v| (v.length() - 1.0).abs() < 1e-3));
                assert!(mesh.triangles.iter().flatten().all(|i| *i < n));
            }
            for piece in build::pieces(&recipe.doc, seed).unwrap() {
                let v = signed_volume6(&piece.mesh.positions, &piece.mesh.triangles);
                assert!(v > 0.0, "{}: {} is inside out", recipe.stem(), piece.name);
            }
        }
    }
}
