//! Every entry point in every permutation is valid WGSL, declares the bindings that the host gives
//! it, and lays out its parameters as Rust does.

use std::mem::offset_of;

use gen3d::gpu::kernels::{
    Access, AdamParams, BackgroundParams, CompositeParams, FieldParams, Kernel, Level, MarchParams,
    NormalParams, OccupancyParams, ScanParams, SurfaceParams, TextureParams,
};
use gen3d::gpu::shader::{BindingKind, Checked, Permutation, ShaderError, Sources};

/// A parameter struct as Rust lays it out; padding is left out.
struct Layout {
    name: &'static str,
    size: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! layout {
    ($name:ident: $($field:ident),+) => {
        Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            fields: vec![$((stringify!($field), offset_of!($name, $field))),+],
        }
    };
}

fn layouts() -> Vec<Layout> {
    vec![
        layout!(MarchParams: rays, first_ray, width, height, bins, mask_words, resolution, jitter, seed,
            step, step_size, half_extent, near),
        layout!(ScanParams: n),
        layout!(Level: vertices, offset, entries, hashed),
        layout!(FieldParams: points, levels, active_levels, hidden, activation, keep_features, blob_scale,
            blob_radius, table),
        layout!(CompositeParams: rays, first_ray, rays_per_background, use_weight_grad, early_stop),
        layout!(NormalParams: rays, threshold, epsilon, floor),
        layout!(AdamParams: n, rate, beta1, beta2, v_scale, eps),
        layout!(OccupancyParams: resolution, step, seed, decay, threshold),
        layout!(BackgroundParams: rays),
        layout!(SurfaceParams: views, vertices, triangles, width, height, tiles_x, tiles_y, cull, near, peel,
            channels),
        layout!(TextureParams: pixels, channels, width, height, levels, sampling, wrap, level),
    ]
}

fn checked() -> Vec<(Permutation, Checked)> {
    gen3d::gpu::sources().check_all().unwrap_or_else(|all| {
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        panic!("{} permutations are invalid:\n{}", all.len(), all.join("\n"))
    })
}

#[test]
fn every_permutation_is_valid_and_every_kernel_has_one() {
    let all = checked();
    let mut missing = Vec::new();
    for kernel in Kernel::ALL {
        if !all.iter().any(|(p, c)| p.entry == kernel.name() && c.entry_point == kernel.name()) {
            missing.push(kernel.name());
        }
    }
    assert!(missing.is_empty(), "kernels without a shader: {missing:?}");
}

#[test]
fn bindings_are_those_of_the_kernel_list() {
    let mut wrong = Vec::new();
    for (permutation, checked) in checked() {
        let Some(kernel) = Kernel::ALL.into_iter().find(|k| k.name() == permutation.entry) else {
            wrong.push(format!("{} is no kernel", permutation.entry));
            continue;
        };
        let mut wanted = vec![(0, "p".to_owned(), BindingKind::Uniform)];
        for (binding, index) in kernel.bindings().iter().zip(1..) {
            let kind = match binding.access {
                Access::Read => BindingKind::Read,
                Access::Write => BindingKind::ReadWrite,
            };
            wanted.push((index, binding.name.to_owned(), kind));
        }
        let found: Vec<_> = checked.bindings.iter().map(|b| (b.index, b.name.clone(), b.kind)).collect();
        if found != wanted {
            wrong.push(format!("{}:\n  shader {found:?}\n  host   {wanted:?}", checked.label));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What differs between Rust's layout and that of the shader's struct of the same name.
fn differences(layout: &Layout, checked: &Checked) -> Vec<String> {
    let module = &checked.module;
    let Some((_, ty)) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some(layout.name)) else {
        return Vec::new();
    };
    let naga::TypeInner::Struct { members, span } = &ty.inner else {
        return vec![format!("{}: {} is no struct", checked.label, layout.name)];
    };
    let mut wrong = Vec::new();
    if *span as usize != layout.size {
        wrong.push(format!("{}: {} has {span} bytes, {} in Rust", checked.label, layout.name, layout.size));
    }
    let found: Vec<_> = members
        .iter()
        .map(|m| (m.name.as_deref().unwrap_or(""), m.offset as usize))
        .filter(|(name, _)| !name.starts_with("pad"))
        .collect();
    if found != layout.fields {
        let text =
            format!("{}: {}\n  shader {found:?}\n  Rust   {:?}", checked.label, layout.name, layout.fields);
        wrong.push(text);
    }
    wrong
}

#[test]
fn parameters_have_the_same_layout_in_rust_and_wgsl() {
    let (all, layouts) = (checked(), layouts());
    let wrong: Vec<_> =
        all.iter().flat_map(|(_, c)| layouts.iter().flat_map(move |l| differences(l, c))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (_, checked) in &all {
        let uniform =
            checked.module.global_variables.iter().find(|(_, v)| v.space == naga::AddressSpace::Uniform);
        let name = uniform.and_then(|(_, v)| checked.module.types[v.ty].name.as_deref()).unwrap_or("nothing");
        assert!(layouts.iter().any(|l| l.name == name), "{}: {name} is not checked", checked.label);
    }
}

#[test]
fn a_wrong_layout_is_noticed() {
    let source = "struct ScanParams { pad: u32, n: u32 }
@group(0) @binding(0) var<uniform> p: ScanParams;
@compute @workgroup_size(1) fn scan() { _ = p.n; }";
    let checked =
        Sources::new([("scan.wgsl", source)]).assemble("scan", &Default::default()).unwrap().check().unwrap();
    let layouts = layouts();
    let scan = layouts.iter().find(|l| l.name == "ScanParams").unwrap();
    assert_eq!(differences(scan, &checked).len(), 2, "size and offset");
}

fn error_of(files: &[(&str, &str)], entry: &str) -> String {
    let sources = Sources::new(files.iter().copied());
    let checked = sources.assemble(entry, &Default::default()).and_then(|a| a.check());
    checked.map(|c| c.label).unwrap_err().to_string()
}

#[test]
fn errors_name_the_file_and_line_that_the_author_wrote() {
    let shared =
        ("shared/lib.wgsl", "// one\n#ifdef NO\nnonsense\n#endif\nfn two() -> u32 { return missing; }\n");
    let entry = ("main.wgsl", "#import lib\n@compute @workgroup_size(1) fn main() { _ = two(); }\n");
    let text = error_of(&[shared, entry], "main");
    assert!(text.contains("shared/lib.wgsl:5:") && text.contains("missing") && text.contains('^'), "{text}");
    // A type error is the validator's, not the parser's.
    let entry = (
        "main.wgsl",
        "@group(0) @binding(0) var<storage, read> x: array<f32>;\n\n@compute @workgroup_size(1)\nfn main() { x[0] = 1.0; }\n",
    );
    let text = error_of(&[entry], "main");
    assert!(text.contains("main.wgsl:4:"), "{text}");
}

#[test]
fn malformed_directives_are_errors_with_a_line() {
    for (text, message) in [
        ("\n#import nothing\n", "main.wgsl:2: there is no shader file shared/nothing.wgsl"),
        ("#endif\n", "main.wgsl:1: #endif without #ifdef"),
        ("#else\n", "main.wgsl:1: #else without #ifdef"),
        ("#ifdef A\n#else\n#else\n#endif\n", "main.wgsl:3: #else without #ifdef"),
        ("\n#ifdef A\n", "main.wgsl:2: #ifdef without #endif"),
        ("#include x\n", "main.wgsl:1: unknown or malformed directive"),
        ("#ifdef\n", "main.wgsl:1: unknown or malformed directive"),
    ] {
        let found = error_of(&[("main.wgsl", text)], "main");
        assert!(found.contains(message), "{text:?}: {found}");
    }
}

#[test]
fn conditions_numbers_templates_and_imports_work() {
    let files = Sources::new([
        ("permutations", "# a comment\nmain SIZE=8 # another\nmain\n"),
        ("shared/a.wgsl", "#import b\nconst A = 1u;\n"),
        ("shared/b.wgsl", "#import a\nconst B = 2u;\n"),
        ("shared/t.wgsl", "fn get_$() -> u32 { return $; }\n"),
        (
            "main.wgsl",
            "#import a\n#import b\n#import t A\n#import t B\n#ifndef SIZE\nconst SIZE = 4;\n#endif\n\
             #ifdef SIZE\n#ifdef NEVER\nnonsense\n#else\nconst OK = 1;\n#endif\n#else\n#ifndef NEVER\n#endif\n#endif\n\
             @compute @workgroup_size(SIZE) fn main() { _ = get_A() + get_B(); }\n",
        ),
    ]);
    let list = files.permutations().unwrap();
    let source = files.assemble("main", &list[0].defines).unwrap().source;
    assert!(
        source.starts_with("const SIZE = 8;\n")
            && source.contains("const OK")
            && !source.contains("nonsense")
    );
    assert_eq!(source.matches("const A =").count(), 1);
    let sizes: Vec<_> = files.check_all().unwrap().iter().map(|(_, c)| c.workgroup_size[0]).collect();
    assert_eq!(sizes, [8, 4]);
}

#[test]
fn the_permutation_list_must_fit_the_files() {
    let error = |list: &str| -> ShaderError {
        Sources::new([("permutations", list), ("main.wgsl", "")]).permutations().unwrap_err()
    };
    assert!(error("").0.contains("main.wgsl is not listed"));
    assert!(error("main\nother\n").0.contains("permutations:2: there is no other.wgsl"));
    assert!(error("main SIZE=big\n").0.contains("permutations:1"));
    assert!(error("main 4=4\n").0.contains("permutations:1"));
}

#[test]
fn all_invalid_permutations_are_listed() {
    let files =
        Sources::new([("permutations", "a\nb\nc\n"), ("a.wgsl", "x"), ("b.wgsl", ""), ("c.wgsl", "y")]);
    // The empty one has no entry point.
    assert_eq!(files.check_all().unwrap_err().len(), 3);
}
