//! AdamW with gradient clipping and averaged weights.

mod device;

use std::collections::{BTreeMap, HashMap};

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var, bail};
use rayon::prelude::*;

use device::Flat;

/// Settings of [`AdamW`].
#[derive(Debug, Clone)]
pub struct AdamConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay (Loshchilov and Hutter 2019).
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: Option<f64>,
    /// Decay of the exponential moving average of the weights; none is kept if absent.
    pub ema_decay: Option<f64>,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: None, ema_decay: None }
    }
}

/// What is kept of each variable: weights, first and second moments, averaged weights (empty if none are
/// kept), by the names of a checkpoint.
const KINDS: [&str; 4] = ["w", "m", "v", "a"];

struct Slot {
    name: String,
    var: Var,
    /// By [`KINDS`]; on a device [`Flat`] keeps them.
    kept: [Vec<f32>; 4],
}

/// The optimiser of a set of named f32 variables.
///
/// m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², w ← w − lr·(m̂/(√v̂ + ε) + λw) with bias-corrected m̂, v̂
/// (Kingma and Ba 2015), one fused pass a tensor on the CPU, and one a set on a device.
pub struct AdamW {
    config: AdamConfig,
    slots: Vec<Slot>,
    flat: Option<Flat>,
    steps: u32,
}

impl AdamW {
    /// Zero moments; the averages start at the weights.
    ///
    /// # Errors
    /// If a variable is not f32.
    pub fn new(vars: BTreeMap<String, Var>, config: AdamConfig) -> Result<Self> {
        let on_device = vars.values().any(|v| !v.device().is_cpu());
        Self::with_place(vars, config, on_device)
    }

    fn with_place(vars: BTreeMap<String, Var>, config: AdamConfig, on_device: bool) -> Result<Self> {
        let slots: Vec<Slot> = vars
            .into_iter()
            .map(|(name, var)| {
                let weight = var.flatten_all()?.to_vec1::<f32>()?;
                let average = if config.ema_decay.is_some() { weight.clone() } else { Vec::new() };
                let zeros = vec![0.0; weight.len()];
                Ok(Slot { name, var, kept: [weight, zeros.clone(), zeros, average] })
            })
            .collect::<Result<_>>()?;
        let mut out = Self { config, slots, flat: None, steps: 0 };
        if on_device {
            out.flat = Flat::new(&mut out.slots)?;
        }
        Ok(out)
    }

    /// The variables by name.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.slots.iter().map(|s| (s.name.as_str(), &s.var))
    }

    /// One update with learning rate `rate`; returns the gradients' global norm before clipping.
    ///
    /// # Errors
    /// If a variable has no gradient (a cut tape must not pass silently) or a gradient is not finite.
    pub fn step(&mut self, grads: &GradStore, rate: f64) -> Result<f64> {
        self.step_sum(&[grads], rate)
    }

    /// [`AdamW::step`] on the sum of the gradients of several parts of a loss; a part need not reach
    /// every variable.
    ///
    /// # Errors
    /// As [`AdamW::step`].
    pub fn step_sum(&mut self, parts: &[&GradStore], rate: f64) -> Result<f64> {
        let norm = match &mut self.flat {
            Some(flat) => {
                let (grad, norm) = flat.gradient(&self.slots, parts)?;
                self.steps += 1;
                let update = Update::new(&self.config, self.steps, rate, norm);
                flat.apply(&update, &grad)?;
                flat.publish(&self.slots)?;
                norm
            }
            None => {
                let (grads, norm) = gradients(&self.slots, parts)?;
                self.steps += 1;
                let update = Update::new(&self.config, self.steps, rate, norm);
                self.slots.par_iter_mut().zip(grads).try_for_each(|(slot, grad)| {
                    update.apply(slot, &grad);
                    slot.var.set(&Tensor::from_slice(&slot.kept[0], slot.var.shape(), slot.var.device())?)
                })?;
                norm
            }
        };
        Ok(norm)
    }

    /// Kind `kind` of each variable on the CPU, if it is kept.
    fn read(&self, kind: usize) -> Result<Option<Vec<Tensor>>> {
        if let Some(flat) = &self.flat {
            return flat.read(kind, &self.slots);
        }
        if self.slots.iter().any(|s| s.kept[kind].len() != s.var.elem_count()) {
            return Ok(None);
        }
        let one = |s: &Slot| Tensor::from_slice(&s.kept[kind], s.var.shape(), &Device::Cpu);
        self.slots.iter().map(one).collect::<Result<_>>().map(Some)
    }

    /// Weights, moments, averages and the number of steps, as named tensors.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut out = HashMap::new();
        for (kind, name) in KINDS.iter().enumerate() {
            for (slot, tensor) in self.slots.iter().zip(self.read(kind)?.into_iter().flatten()) {
                out.insert(format!("{name}:{}", slot.name), tensor);
            }
        }
        out.insert("adam_steps".into(), Tensor::new(&[self.steps], &Device::Cpu)?);
        Ok(out)
    }

    /// Restores [`AdamW::state`]; nothing is changed unless everything fits.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load_state(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let get = |kind: &str, slot: &Slot| match tensors.get(&format!("{kind}:{}", slot.name)) {
            Some(t) if t.dims() == slot.var.dims() => t.flatten_all()?.to_vec1::<f32>(),
            Some(t) => bail!("{kind}:{} has shape {:?}, expected {:?}", slot.name, t.dims(), slot.var.dims()),
            None => bail!("{kind}:{} is missing: another model's checkpoint", slot.name),
        };
        let Some(steps) = tensors.get("adam_steps") else { bail!("adam_steps is missing") };
        let steps = steps.flatten_all()?.to_vec1::<u32>()?.first().copied().unwrap_or(0);
        let kinds = if self.config.ema_decay.is_some() { &KINDS[..] } else { &KINDS[..3] };
        let mut read = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let mut kept: [Vec<f32>; 4] = Default::default();
            for (into, kind) in kept.iter_mut().zip(kinds) {
                *into = get(kind, slot)?;
            }
            read.push(kept);
        }
        for (slot, kept) in self.slots.iter_mut().zip(read) {
            slot.var.set(&Tensor::from_slice(&kept[0], slot.var.shape(), slot.var.device())?)?;
            slot.kept = kept;
        }
        if self.flat.is_some() {
            self.flat = Flat::new(&mut self.slots)?;
        }
        self.steps = steps;
        Ok(())
    }

    /// The averaged weights, or the weights themselves where none are kept.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn averaged(&self) -> Result<HashMap<String, Tensor>> {
        let tensors = match self.read(3)? {
            Some(averages) => averages,
            None => self.read(0)?.unwrap_or_default(),
        };
        Ok(self.slots.iter().map(|s| s.name.clone()).zip(tensors).collect())
    }
}

/// The summed gradient of each variable, and the norm of all.
fn gradients(slots: &[Slot], parts: &[&GradStore]) -> Result<(Vec<Vec<f32>>, f64)> {
    let total = |slot: &Slot| -> Result<Vec<f32>> {
        let mut sum = vec![0.0; slot.kept[0].len()];
        for grad in found(slot, parts)? {
            let grad = grad.flatten_all()?.to_vec1::<f32>()?;
            sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g);
        }
        Ok(sum)
    };
    let gradients: Vec<Vec<f32>> = slots.par_iter().map(total).collect::<Result<_>>()?;
    // Summed tensor by tensor in the order of names: the same bytes at any thread count.
    let squares: Vec<f64> =
        gradients.par_iter().map(|g| g.iter().map(|&x| f64::from(x) * f64::from(x)).sum()).collect();
    let norm = finite(squares.iter().sum::<f64>().sqrt())?;
    Ok((gradients, norm))
}

/// The gradients that the parts of a loss have for a variable.
fn found<'a>(slot: &Slot, parts: &[&'a GradStore]) -> Result<Vec<&'a Tensor>> {
    let found: Vec<_> = parts.iter().filter_map(|part| part.get(slot.var.as_tensor())).collect();
    if found.is_empty() {
        bail!("adam: {} has no gradient", slot.name);
    }
    Ok(found)
}

fn finite(norm: f64) -> Result<f64> {
    if !norm.is_finite() {
        bail!("adam: the gradients' norm is {norm}");
    }
    Ok(norm)
}

/// The scalars of one step.
struct Update {
    beta1: f32,
    beta2: f32,
    eps: f32,
    step_size: f32,
    root_correction: f32,
    decay: f32,
    clip: f32,
    average: f32,
}

impl Update {
    /// The `steps`-th of learning rate `rate`, for gradients of global norm `norm`.
    fn new(config: &AdamConfig, steps: u32, rate: f64, norm: f64) -> Self {
        let clip = config.max_grad_norm.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0));
        let t = f64::from(steps);
        // The average's decay rises to its value: early averages must not remember the start.
        let average = config.ema_decay.map_or(0.0, |d| d.min((1.0 + t) / (10.0 + t)));
        Self {
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            eps: config.eps as f32,
            step_size: (rate / (1.0 - config.beta1.powf(t))) as f32,
            root_correction: (1.0 / (1.0 - config.beta2.powf(t)).sqrt()) as f32,
            decay: (1.0 - rate * config.weight_decay) as f32,
            clip: clip as f32,
            average: average as f32,
        }
    }

    fn apply(&self, slot: &mut Slot, grad: &[f32]) {
        let [weights, firsts, seconds, averages] = &mut slot.kept;
        let moments = firsts.iter_mut().zip(seconds);
        for ((w, (m, v)), g) in weights.iter_mut().zip(moments).zip(grad) {
            let g = g * self.clip;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            *w = *w * self.decay - self.step_size * *m / (v.sqrt() * self.root_correction + self.eps);
        }
        for (a, w) in averages.iter_mut().zip(weights) {
            *a = self.average * *a + (1.0 - self.average) * *w;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optimiser(config: AdamConfig) -> (Var, AdamW) {
        let var = Var::from_tensor(&Tensor::new(&[1f32, -2., 3.], &Device::Cpu).unwrap()).unwrap();
        let adam = AdamW::new(BTreeMap::from([("w".to_owned(), var.clone())]), config).unwrap();
        (var, adam)
    }

    fn descend(var: &Var, adam: &mut AdamW, steps: usize) {
        for _ in 0..steps {
            let loss = (var.as_tensor() - 0.5).unwrap().sqr().unwrap().sum_all().unwrap();
            adam.step(&loss.backward().unwrap(), 0.01).unwrap();
        }
    }

    #[test]
    fn agrees_with_the_recurrence_in_f64() {
        let config = AdamConfig { weight_decay: 0.1, max_grad_norm: Some(2.0), ..Default::default() };
        let (var, mut adam) = optimiser(config);
        descend(&var, &mut adam, 5);
        let (mut w, mut m, mut v) = ([1f64, -2., 3.], [0f64; 3], [0f64; 3]);
        for t in 1..=5 {
            let g: Vec<f64> = w.iter().map(|w| 2.0 * (w - 0.5)).collect();
            let clip = (2.0 / (g.iter().map(|g| g * g).sum::<f64>().sqrt() + 1e-6)).min(1.0);
            for i in 0..3 {
                m[i] = 0.9 * m[i] + 0.1 * g[i] * clip;
                v[i] = 0.999 * v[i] + 0.001 * (g[i] * clip).powi(2);
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.999f64.powi(t)));
                w[i] = w[i] * (1.0 - 0.01 * 0.1) - 0.01 * mh / (vh.sqrt() + 1e-8);
            }
        }
        for (a, b) in var.to_vec1::<f32>().unwrap().iter().zip(w) {
            assert!((f64::from(*a) - b).abs() < 2e-6, "{a} {b}");
        }
    }

    /// The device's way, run on the CPU, is the host's up to rounding, checkpoints included.
    #[test]
    fn a_device_takes_the_same_steps() {
        let config = AdamConfig {
            weight_decay: 0.1,
            max_grad_norm: Some(2.0),
            ema_decay: Some(0.9),
            ..Default::default()
        };
        let var = |shape: &[usize], x: f32| {
            let n = shape.iter().product();
            let values = (0..n).map(|i| x + i as f32).collect::<Vec<_>>();
            Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
        };
        let made = |on_device| {
            let vars =
                BTreeMap::from([("a".to_owned(), var(&[2, 3], -2.0)), ("b".to_owned(), var(&[1], 3.0))]);
            AdamW::with_place(vars, config.clone(), on_device).unwrap()
        };
        let descend = |adam: &mut AdamW| {
            for _ in 0..5 {
                let part = |k: f64| {
                    let mut sum = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
                    for (_, v) in adam.vars() {
                        sum = (sum
                            + ((v.as_tensor() - 0.5).unwrap() * k)
                                .unwrap()
                                .sqr()
                                .unwrap()
                                .sum_all()
                                .unwrap())
                        .unwrap();
                    }
                    sum.backward().unwrap()
                };
                let (one, two) = (part(1.0), part(0.5));
                adam.step_sum(&[&one, &two], 0.05).unwrap();
            }
        };
        let (mut host, mut flat) = (made(false), made(true));
        descend(&mut host);
        descend(&mut flat);
        let mut resumed = made(true);
        resumed.load_state(&flat.state().unwrap()).unwrap();
        descend(&mut host);
        descend(&mut resumed);
        let (expected, got) = (host.state().unwrap(), resumed.state().unwrap());
        assert_eq!(expected.len(), 9);
        for (name, t) in expected.iter().filter(|(name, _)| *name != "adam_steps") {
            let [t, g] = [t, &got[name]].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            for (t, g) in t.iter().zip(g) {
                assert!((t - g).abs() <= 2e-6 * t.abs().max(1e-3), "{name}: {t} {g}");
            }
        }
        for (name, v) in resumed.vars() {
            let kept = got[&format!("w:{name}")].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(v.flatten_all().unwrap().to_vec1::<f32>().unwrap(), kept);
        }
    }

    #[test]
    fn parts_of_a_loss_add_up() {
        let (whole, mut adam) = optimiser(AdamConfig::default());
        let (split, mut other) = optimiser(AdamConfig::default());
        let loss = |v: &Var, k: f64| (v.as_tensor() * k).unwrap().sqr().unwrap().sum_all().unwrap();
        adam.step(&(loss(&whole, 1.0) + loss(&whole, 2.0)).unwrap().backward().unwrap(), 0.1).unwrap();
        let parts = [1.0, 2.0].map(|k| loss(&split, k).backward().unwrap());
        other.step_sum(&[&parts[0], &parts[1]], 0.1).unwrap();
        assert_eq!(whole.to_vec1::<f32>().unwrap(), split.to_vec1::<f32>().unwrap());
        assert_ne!(whole.to_vec1::<f32>().unwrap(), [1.0, -2.0, 3.0]);
    }

    #[test]
    fn a_restored_state_goes_on_exactly() {
        let config = AdamConfig { ema_decay: Some(0.9), ..Default::default() };
        let (var, mut adam) = optimiser(config.clone());
        descend(&var, &mut adam, 3);
        let state = adam.state().unwrap();
        descend(&var, &mut adam, 4);
        let (other, mut resumed) = optimiser(config);
        resumed.load_state(&state).unwrap();
        descend(&other, &mut resumed, 4);
        assert_eq!(var.to_vec1::<f32>().unwrap(), other.to_vec1::<f32>().unwrap());
        let average = |a: &AdamW| a.averaged().unwrap()["w"].to_vec1::<f32>().unwrap();
        assert_eq!(average(&adam), average(&resumed));
        assert_ne!(average(&adam), var.to_vec1::<f32>().unwrap());
    }

    #[test]
    fn a_cut_tape_and_a_foreign_state_are_errors() {
        let (_var, mut adam) = optimiser(AdamConfig::default());
        let stranger = Var::from_tensor(&Tensor::new(&[1f32], &Device::Cpu).unwrap()).unwrap();
        let grads = stranger.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert!(adam.step(&grads, 0.1).unwrap_err().to_string().contains("w has no gradient"));
        assert!(adam.load_state(&HashMap::new()).is_err());
    }
}
