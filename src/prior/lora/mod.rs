//! Low-rank adapters (`LoRA` files) merged into a model's weights.
//!
//! Files of diffusers (its old and new names), peft and kohya are understood. Which tensor an adapter
//! belongs to is found by comparing names with those of the model, so a file for another model is an
//! error that lists what does not fit, and nothing is merged.

mod fresh;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};

pub use fresh::{Fresh, fresh, is_attention};

use super::single_file;
use super::tensor_file::read_safetensors;
use crate::error::{Error, Result};

/// The adapters of one file, by the name of their layer in the file.
#[derive(Debug, Clone)]
pub struct Lora {
    path: PathBuf,
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Clone, Default)]
struct Layer {
    /// `[rank, in, …]`.
    down: Option<Tensor>,
    /// `[out, rank, …]`.
    up: Option<Tensor>,
    alpha: Option<f64>,
}

/// A part of a prior, and how adapter files call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `unet`.
    Unet,
    /// `text_encoder`.
    Text,
    /// `text_encoder_2` (SDXL).
    Text2,
}

impl Part {
    /// Beginnings of dotted names, and of kohya's underscored ones.
    fn prefixes(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Unet => (&["unet.", "base_model.model.unet."], &["lora_unet_"]),
            Self::Text => (&["text_encoder."], &["lora_te_", "lora_te1_"]),
            Self::Text2 => (&["text_encoder_2."], &["lora_te2_"]),
        }
    }

    fn owns(self, name: &str) -> bool {
        let (dotted, underscored) = self.prefixes();
        dotted.iter().chain(underscored).any(|p| name.starts_with(p))
    }
}

/// Endings of the tensors of an adapter, and what each is.
const ENDINGS: [(&str, Kind); 13] = [
    (".lora_A.weight", Kind::Down),
    (".lora_B.weight", Kind::Up),
    (".lora_A.default.weight", Kind::Down),
    (".lora_B.default.weight", Kind::Up),
    (".lora_down.weight", Kind::Down),
    (".lora_up.weight", Kind::Up),
    (".lora.down.weight", Kind::Down),
    (".lora.up.weight", Kind::Up),
    (".lora_linear_layer.down.weight", Kind::Down),
    (".lora_linear_layer.up.weight", Kind::Up),
    ("_lora.down.weight", Kind::Down),
    ("_lora.up.weight", Kind::Up),
    (".alpha", Kind::Alpha),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Down,
    Up,
    Alpha,
}

impl Lora {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] if it is damaged, holds tensors that are no low-rank adapter, or half of one.
    pub fn read(path: &Path) -> Result<Self> {
        let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
        for (name, tensor) in read_safetensors(path)? {
            let ending = ENDINGS.iter().find(|(end, _)| name.ends_with(end));
            let Some((end, kind)) = ending else {
                return Err(Error::file(path, format!("{name} is no tensor of a low-rank adapter")).hint(
                    "LoRA files of diffusers, peft and kohya are understood; LoHa, LoKr and DoRA are not",
                ));
            };
            let layer = layers.entry(name[..name.len() - end.len()].to_owned()).or_default();
            match kind {
                Kind::Down => layer.down = Some(tensor.to_dtype(DType::F32)?),
                Kind::Up => layer.up = Some(tensor.to_dtype(DType::F32)?),
                Kind::Alpha => layer.alpha = Some(scalar(&tensor)?),
            }
        }
        if layers.is_empty() {
            return Err(Error::file(path, "holds no adapter"));
        }
        let known = |n: &String| [Part::Unet, Part::Text, Part::Text2].iter().any(|p| p.owns(n));
        if let Some(name) = layers.keys().find(|n| !known(n)) {
            return Err(Error::file(path, format!("{name} belongs to no part of a prior"))
                .hint("names begin with unet., text_encoder., lora_unet_ or lora_te_"));
        }
        if let Some((name, _)) = layers.iter().find(|(_, l)| l.down.is_none() || l.up.is_none()) {
            return Err(Error::file(path, format!("{name} has only half of its adapter")));
        }
        Ok(Self { path: path.into(), layers })
    }

    /// Names of the file's layers that belong to `part`, and the names of the tensors they change.
    /// Layers of other parts are passed over.
    fn targets(&self, part: Part, tensors: &HashMap<String, Tensor>) -> (Vec<(&str, String)>, Vec<&str>) {
        let (dotted, underscored) = part.prefixes();
        let known: HashMap<String, String> = tensors
            .keys()
            .filter_map(|k| {
                let layer = k.strip_suffix(".weight")?;
                Some((layer.replace('.', "_"), layer.to_owned()))
            })
            .collect();
        let (mut found, mut strange) = (Vec::new(), Vec::new());
        for name in self.layers.keys() {
            let dots = dotted.iter().find_map(|p| name.strip_prefix(p));
            let unders = underscored.iter().find_map(|p| name.strip_prefix(p));
            let Some(rest) = dots.or(unders) else { continue };
            // diffusers' attention processors: `attn1.processor.to_q` (`to_out` is `to_out.0`).
            let mut key = rest.replace(".processor", "").replace('.', "_");
            if key.ends_with("to_out") {
                key += "_0";
            }
            let found_layer = known.get(&key).or_else(|| {
                // kohya's SDXL files number the blocks as the original code does.
                let translated = single_file::underscored_layer(&key).filter(|_| part == Part::Unet)?;
                known.get(&translated.replace('.', "_"))
            });
            match found_layer {
                Some(layer) => found.push((name.as_str(), format!("{layer}.weight"))),
                None => strange.push(name.as_str()),
            }
        }
        (found, strange)
    }
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    values.first().copied().ok_or_else(|| Error::Failed("an empty alpha".into()))
}

/// W ← W + Σ weight·(alpha/rank)·U D for all adapters of `part` in `files`; nothing is changed unless
/// every adapter fits.
///
/// # Errors
/// [`Error::File`] that lists all layers of a file which the model does not have, or have another shape.
pub fn merge(tensors: &mut HashMap<String, Tensor>, part: Part, files: &[(Lora, f64)]) -> Result<()> {
    let mut changed: HashMap<String, Tensor> = HashMap::new();
    for (lora, weight) in files {
        let (targets, strange) = lora.targets(part, tensors);
        let mut faults: BTreeSet<String> =
            strange.iter().map(|n| format!("{n}: the model has no such layer")).collect();
        for (name, target) in targets {
            let layer = &lora.layers[name];
            let base = changed.get(&target).or_else(|| tensors.get(&target));
            let (Some(base), Some(down), Some(up)) = (base, &layer.down, &layer.up) else { continue };
            match delta(base, down, up)? {
                Some(delta) => {
                    let rank = down.dims()[0] as f64;
                    let scale = weight * layer.alpha.unwrap_or(rank) / rank;
                    let base = base.to_dtype(DType::F32)?;
                    changed.insert(target, (base + (delta * scale)?)?);
                }
                None => {
                    faults.insert(format!(
                        "{name}: {:?} and {:?} do not fit {:?}",
                        down.dims(),
                        up.dims(),
                        base.dims()
                    ));
                }
            }
        }
        if !faults.is_empty() {
            let shown = faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
            let more = faults.len().saturating_sub(20);
            let more = if more > 0 { format!("\n  … and {more} more") } else { String::new() };
            return Err(Error::file(&lora.path, format!("does not fit the prior:\n  {shown}{more}"))
                .hint("the adapters were made for another model"));
        }
    }
    tensors.extend(changed);
    Ok(())
}

/// U D in the shape of `base`, or nothing if the shapes do not fit.
fn delta(base: &Tensor, down: &Tensor, up: &Tensor) -> Result<Option<Tensor>> {
    let flat = |t: &Tensor| -> Result<Tensor> {
        let rows = t.dims()[0];
        Ok(t.reshape((rows, t.elem_count() / rows.max(1)))?)
    };
    if [base, down, up].iter().any(|t| t.rank() < 2 || t.elem_count() == 0) {
        return Ok(None);
    }
    let (d, u) = (flat(down)?, flat(up)?);
    let fits = u.dims()[1] == d.dims()[0]
        && u.dims()[0] == base.dims()[0]
        && d.dims()[1] == base.elem_count() / base.dims()[0];
    if fits { Ok(Some(u.matmul(&d)?.reshape(base.dims())?)) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(shape: &[usize], step: f32) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn model() -> HashMap<String, Tensor> {
        HashMap::from([
            ("down_blocks.0.attn1.to_q.weight".to_owned(), tensor(&[4, 6], 0.3)),
            ("down_blocks.0.attn1.to_out.0.weight".to_owned(), tensor(&[4, 4], 0.2)),
            ("conv_in.weight".to_owned(), tensor(&[4, 2, 3, 3], 0.7)),
        ])
    }

    fn file(layers: &[(&str, Tensor)]) -> Result<Lora> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lora.safetensors");
        let map: HashMap<String, Tensor> = layers.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        candle_core::safetensors::save(&map, &path).unwrap();
        Lora::read(&path)
    }

    fn off(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn every_naming_reaches_the_same_layer() {
        let (down, up) = (tensor(&[2, 6], 0.11), tensor(&[4, 2], 0.13));
        let mut want = model();
        let product = (up.matmul(&down).unwrap() * 0.5).unwrap();
        let key = "down_blocks.0.attn1.to_q.weight";
        want.insert(key.into(), (&want[key] + product).unwrap());
        let names = [
            ("unet.down_blocks.0.attn1.to_q.lora_A.weight", "unet.down_blocks.0.attn1.to_q.lora_B.weight"),
            (
                "unet.down_blocks.0.attn1.to_q.lora.down.weight",
                "unet.down_blocks.0.attn1.to_q.lora.up.weight",
            ),
            (
                "unet.down_blocks.0.attn1.processor.to_q_lora.down.weight",
                "unet.down_blocks.0.attn1.processor.to_q_lora.up.weight",
            ),
            (
                "lora_unet_down_blocks_0_attn1_to_q.lora_down.weight",
                "lora_unet_down_blocks_0_attn1_to_q.lora_up.weight",
            ),
        ];
        for (a, b) in names {
            let lora = file(&[(a, down.clone()), (b, up.clone())]).unwrap();
            let mut got = model();
            merge(&mut got, Part::Unet, &[(lora.clone(), 0.5)]).unwrap();
            for (name, tensor) in &want {
                assert!(off(&got[name], tensor) < 1e-6, "{a} {name}");
            }
            // Nothing of it is the text encoder's.
            let mut text = model();
            merge(&mut text, Part::Text, &[(lora, 0.5)]).unwrap();
            assert!(off(&text[key], &model()[key]) == 0.0);
        }
    }

    #[test]
    fn alpha_weights_and_convolutions_count() {
        let (down, up) = (tensor(&[2, 2, 3, 3], 0.11), tensor(&[4, 2, 1, 1], 0.13));
        let layer = "lora_unet_conv_in";
        let alpha = Tensor::new(8f32, &Device::Cpu).unwrap();
        let lora = file(&[
            (&format!("{layer}.lora_down.weight"), down.clone()),
            (&format!("{layer}.lora_up.weight"), up.clone()),
            (&format!("{layer}.alpha"), alpha),
        ])
        .unwrap();
        let mut got = model();
        // Twice, with weights 0.25 and 0.5 at alpha/rank = 4: three times U D.
        merge(&mut got, Part::Unet, &[(lora.clone(), 0.25), (lora, 0.5)]).unwrap();
        let product = up.reshape((4, 2)).unwrap().matmul(&down.reshape((2, 18)).unwrap()).unwrap();
        let want =
            (&model()["conv_in.weight"] + (product.reshape((4, 2, 3, 3)).unwrap() * 3.0).unwrap()).unwrap();
        assert!(off(&got["conv_in.weight"], &want) < 1e-5);
    }

    #[test]
    fn kohya_files_may_number_blocks_as_the_original_code_does() {
        let cases = [
            (
                "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
                "down_blocks.1.attentions.0.transformer_blocks_0_attn1_to_q",
            ),
            ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
            ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
            ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
            ("middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
            ("output_blocks_5_1_proj_out", "up_blocks.1.attentions.2.proj_out"),
            ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ];
        for (old, new) in cases {
            assert_eq!(single_file::underscored_layer(old).as_deref(), Some(new), "{old}");
        }
        for other in ["down_blocks_0_attn1_to_q", "input_blocks_x_1_y", "input_blocks_4", "middle_block_7_x"]
        {
            assert_eq!(single_file::underscored_layer(other), None, "{other}");
        }
        let (down, up) = (tensor(&[2, 6], 0.11), tensor(&[4, 2], 0.13));
        let mut sdxl = model();
        sdxl.insert(
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight".into(),
            tensor(&[4, 6], 0.3),
        );
        let layer = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q";
        let lora = file(&[
            (&format!("{layer}.lora_down.weight"), down.clone()),
            (&format!("{layer}.lora_up.weight"), up.clone()),
        ])
        .unwrap();
        let before = sdxl.clone();
        merge(&mut sdxl, Part::Unet, &[(lora, 1.0)]).unwrap();
        let key = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight";
        let want = (&before[key] + up.matmul(&down).unwrap()).unwrap();
        assert!(off(&sdxl[key], &want) < 1e-6);
    }

    #[test]
    fn what_does_not_fit_is_listed_and_changes_nothing() {
        let to_q = "lora_unet_down_blocks_0_attn1_to_q";
        let lora = file(&[
            ("lora_unet_elsewhere.lora_down.weight", tensor(&[2, 6], 0.1)),
            ("lora_unet_elsewhere.lora_up.weight", tensor(&[4, 2], 0.1)),
            (&format!("{to_q}.lora_down.weight"), tensor(&[2, 5], 0.1)),
            (&format!("{to_q}.lora_up.weight"), tensor(&[4, 2], 0.1)),
        ])
        .unwrap();
        let mut got = model();
        let error = merge(&mut got, Part::Unet, &[(lora, 1.0)]).unwrap_err().to_string();
        assert!(error.contains("elsewhere") && error.contains("do not fit"), "{error}");
        for (name, tensor) in model() {
            assert_eq!(off(&got[&name], &tensor), 0.0);
        }
        let cases = [
            ("x.hada_w1_a", "no tensor of a low-rank"),
            ("unet.x.lora_A.weight", "only half"),
            ("transformer.x.lora_A.weight", "no part of a prior"),
        ];
        for (name, part) in cases {
            let error = file(&[(name, tensor(&[2, 2], 0.1))]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
