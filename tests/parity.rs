//! Parity with PyTorch diffusers and transformers on tiny random models of every configuration
//! (`tests/parity`, written by `generate.py` there).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::Tensor;
use gen3d::prior::lora::{Lora, Part, merge};
use gen3d::prior::tensor_file::read_safetensors;
use gen3d::prior::verify::{Report, against};

/// Every model, and how many quantities its reference has.
const MODELS: [(&str, usize); 13] = [
    ("sd1", 1),
    ("sd2", 1),
    ("sdxl", 1),
    ("inpainting", 1),
    ("camera", 1),
    ("timestep_class", 1),
    ("vae", 3),
    ("vae_plain", 3),
    ("vae_tiny", 3),
    ("clip", 2),
    ("open_clip", 2),
    ("controlnet", 5),
    ("controlnet_bgr", 5),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(name)
}

fn reports(dir: &Path) -> Vec<Report> {
    against(dir, &dir.join("reference.safetensors")).unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
}

#[test]
fn every_configuration_agrees_with_diffusers() {
    let mut table = String::new();
    let mut worst = 0.0f64;
    for (name, quantities) in MODELS {
        let reports = reports(&folder(name));
        assert_eq!(reports.len(), quantities, "{name}: {reports:?}");
        for Report { quantity, relative_error } in reports {
            table += &format!("{name:<16} {quantity:<20} {relative_error:.2e}\n");
            // Two f32 programs that sum in different orders; the worst seen is some 1e-6.
            assert!(relative_error < 1e-5, "out of tolerance:\n{table}");
            worst = worst.max(relative_error);
        }
    }
    println!("{table}");
    assert!(worst > 0.0, "bit-equal to another program: was anything compared?");
}

/// A checkpoint in one file, under the names of the original code.
#[test]
fn single_files_agree_with_diffusers() {
    for name in ["single1", "single2"] {
        let dir = folder(name);
        let reports = against(&dir.join("model.safetensors"), &dir.join("reference.safetensors")).unwrap();
        assert_eq!(reports.len(), 4, "{name}");
        assert!(reports.iter().all(|r| r.relative_error < 1e-5), "{name}: {reports:?}");
    }
    // A file of something else, and one with a tensor that has no place.
    let lora = folder("lora").join("peft.safetensors");
    let error = against(&lora, &folder("single1").join("reference.safetensors")).unwrap_err();
    assert!(error.to_string().contains("no U-Net"), "{error}");
    let dir = copy("single1");
    let file = dir.path().join("model.safetensors");
    edit(&file, |t| drop(t.insert("model.diffusion_model.extra".into(), t["alphas_cumprod"].clone())));
    let error = against(&file, &dir.path().join("reference.safetensors")).unwrap_err();
    assert!(error.to_string().contains("model.diffusion_model.extra"), "{error}");
}

/// Merging an adapter file gives what peft computes with it.
#[test]
fn adapters_agree_with_peft() {
    let base = read_safetensors(&folder("lora").join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    for naming in ["peft", "kohya"] {
        let lora = Lora::read(&folder("lora").join(format!("{naming}.safetensors"))).unwrap();
        let error = |weight: f64| {
            let mut tensors: HashMap<String, Tensor> =
                base.iter().map(|(k, v)| (k.clone(), v.to_dtype(candle_core::DType::F32).unwrap())).collect();
            merge(&mut tensors, Part::Unet, &[(lora.clone(), weight)]).unwrap();
            let dir = copy("lora");
            candle_core::safetensors::save(
                &tensors,
                dir.path().join("unet/diffusion_pytorch_model.safetensors"),
            )
            .unwrap();
            reports(dir.path())[0].relative_error
        };
        assert!(error(1.0) < 1e-5, "{naming}: {}", error(1.0));
        assert!(error(0.0) > 0.01 && error(0.9) > 1e-3, "{naming}: the adapters must matter");
    }
}

/// Copies a model so that it can be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let mut open = vec![PathBuf::new()];
    while let Some(sub) = open.pop() {
        for entry in std::fs::read_dir(folder(name).join(&sub)).unwrap() {
            let path = sub.join(entry.unwrap().file_name());
            if folder(name).join(&path).is_dir() {
                std::fs::create_dir_all(to.path().join(&path)).unwrap();
                open.push(path);
            } else {
                std::fs::copy(folder(name).join(&path), to.path().join(&path)).unwrap();
            }
        }
    }
    to
}

fn edit(path: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let mut tensors = read_safetensors(path).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, path).unwrap();
}

#[test]
fn each_tensor_matters() {
    // One tensor of each kind of layer, doubled: the comparison must notice. (A bias before a group
    // norm of the same channels would not do: the norm takes it away again.)
    let cases = [
        ("sd1/unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"),
        ("sd1/unet", "mid_block.attentions.0.proj_in.weight"),
        ("sd2/unet", "up_blocks.1.resnets.1.time_emb_proj.weight"),
        ("sdxl/unet", "down_blocks.1.attentions.0.transformer_blocks.1.ff.net.0.proj.weight"),
        ("sdxl/unet", "add_embedding.linear_1.weight"),
        ("camera/unet", "add_embedding.pool.k_proj.weight"),
        ("camera/unet", "class_embedding.linear_2.bias"),
        ("timestep_class/unet", "class_embedding.linear_1.weight"),
        ("vae/vae", "encoder.mid_block.attentions.0.to_out.0.bias"),
        ("clip/text_encoder", "embeddings.position_embedding.weight"),
        ("open_clip/text_encoder", "text_projection.weight"),
        ("controlnet/controlnet", "controlnet_cond_embedding.blocks.5.weight"),
    ];
    for (place, tensor) in cases {
        let (name, part) = place.split_once('/').unwrap();
        let dir = copy(name);
        let file = std::fs::read_dir(dir.path().join(part))
            .unwrap()
            .map(|f| f.unwrap().path())
            .find(|p| p.extension().is_some_and(|e| e == "safetensors"))
            .unwrap();
        edit(&file, |tensors| {
            let old = tensors.get(tensor).unwrap_or_else(|| panic!("{place} has no {tensor}"));
            let new = (old * 2.0).unwrap();
            tensors.insert(tensor.into(), new);
        });
        let worst = reports(dir.path()).iter().map(|r| r.relative_error).fold(0.0, f64::max);
        assert!(worst > 1e-3, "{place} {tensor}: {worst}");
    }
}

fn verify(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gen3d"))
        .args(["models", "verify"])
        .arg(dir)
        .arg("--against")
        .arg(dir.join("reference.safetensors"))
        .args(more)
        .output()
        .unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_reports_each_quantity_and_its_exit_code_tells() {
    let (code, table, _) = verify(&folder("vae"), &[]);
    assert_eq!(code, Some(0), "{table}");
    assert!(["latent_mean", "decoded", "grad_image"].iter().all(|q| table.contains(q)), "{table}");
    let (code, lines, errors) = verify(&folder("vae"), &["--tolerance", "0", "--json"]);
    assert_eq!((code, lines.lines().count()), (Some(1), 3), "{lines}");
    for line in lines.lines() {
        let report: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(report["relative_error"].as_f64().unwrap() < 1e-5 && report["passed"] == false, "{line}");
    }
    assert!(errors.contains("3 of 3 quantities"), "{errors}");
    let (code, _, errors) = verify(&folder("vae"), &["--tolerance=-1"]);
    assert_eq!(code, Some(2), "{errors}");
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    type Change = fn(&mut HashMap<String, Tensor>);
    let cases: [(&str, Change, &str); 6] = [
        (
            "controlnet",
            |t| drop(t.insert("control.down.9".into(), t["control.mid"].clone())),
            "control.down.9",
        ),
        ("sd1", |t| drop(t.insert("noise_prediction".into(), t["noise_pred"].clone())), "noise_prediction"),
        ("sd1", |t| drop(t.remove("timestep")), "timestep"),
        ("sd1", |t| drop(t.remove("down_residuals.1")), "gaps"),
        ("sd1", |t| drop(t.remove("noise_pred")), "no expected output"),
        ("camera", |t| drop(t.remove("class_labels")), "class_labels"),
    ];
    for (name, change, named) in cases {
        let dir = copy(name);
        edit(&dir.path().join("reference.safetensors"), change);
        let (code, _, errors) = verify(dir.path(), &[]);
        assert!(code != Some(0) && errors.contains(named), "{name}: {code:?} {errors}");
    }
    let dir = copy("vae");
    std::fs::remove_dir_all(dir.path().join("vae")).unwrap();
    let (code, _, errors) = verify(dir.path(), &[]);
    assert!(code == Some(1) && errors.contains("config.json"), "{errors}");
}
