//! Parity of schedules, grids and samplers with diffusers' schedulers
//! (`tests/parity/schedulers.safetensors`, written by `schedulers.py` there).

use std::path::Path;

use candle_core::{DType, Tensor};
use gen3d::Result;
use gen3d::prior::files::parse_json;
use gen3d::prior::schedule::{Config, Schedule};
use gen3d::prior::tensor_file::read_safetensors;
use gen3d::sample::sampler::{Algorithm, Dpm, Midway, trajectory};
use gen3d::sample::{NoisePredictor, Sampler, Trajectory};
use serde_json::Value;

/// tanh(0.7 x + t/1000), read as the schedule's prediction type says.
struct Model<'a>(&'a Schedule);

impl NoisePredictor for Model<'_> {
    fn predict(&self, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        let output = x.affine(0.7, f64::from(t[0]) / 1000.0)?.tanh()?;
        // Between whole timesteps (Euler), ε is the output itself.
        if t[0].fract() != 0.0 { Ok(output) } else { self.0.to_epsilon(&output, x, t) }
    }
}

fn sampler(name: &str, scheduler: &Value) -> Sampler {
    let order = || scheduler["solver_order"].as_u64().unwrap() as usize;
    let dpm = |multistep| {
        Sampler::Dpm(Dpm {
            algorithm: match scheduler["algorithm_type"].as_str().unwrap() {
                "dpmsolver" => Algorithm::Noise,
                "dpmsolver++" => Algorithm::Data,
                _ => Algorithm::SdeData,
            },
            order: order(),
            multistep,
            midway: if scheduler["solver_type"] == "heun" { Midway::Heun } else { Midway::Midpoint },
        })
    };
    match scheduler["_class_name"].as_str().unwrap() {
        "DDPMScheduler" => Sampler::Ddpm { large_variance: name.ends_with("large") },
        "DDIMScheduler" | "EulerDiscreteScheduler" => Sampler::Ddim { eta: 0.0 },
        "LCMScheduler" => Sampler::Lcm { timestep_scaling: 10.0 },
        "EulerAncestralDiscreteScheduler" => Sampler::EulerAncestral,
        "DPMSolverMultistepScheduler" => dpm(true),
        "DPMSolverSinglestepScheduler" => dpm(false),
        "UniPCMultistepScheduler" => Sampler::UniPc { order: order() },
        other => panic!("{other}"),
    }
}

#[test]
fn every_scheduler_agrees_with_diffusers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    let cases: Value = parse_json(&std::fs::read_to_string(folder.join("schedulers.json")).unwrap()).unwrap();
    let reference = read_safetensors(&folder.join("schedulers.safetensors")).unwrap();
    let get = |name: &str| reference[name].to_dtype(DType::F64).unwrap();
    let (start, noises) = (get("x"), get("noise"));
    let mut table = String::new();
    let (mut failed, mut told_apart) = (0, 0);
    let names: Vec<&String> = cases.as_object().unwrap().keys().collect();
    for (number, (name, case)) in cases.as_object().unwrap().iter().enumerate() {
        let schedule = Schedule::new(Config::from_json(&case["scheduler"]).unwrap()).unwrap();
        let sampler = sampler(name, &case["scheduler"]);
        let steps = case["steps"].as_u64().unwrap() as usize;
        let path = match name.starts_with("euler_") && sampler != Sampler::EulerAncestral || name == "euler" {
            true => Trajectory::sigmas(&schedule, steps).unwrap(),
            false => trajectory(&schedule, &sampler, steps).unwrap(),
        };
        let want: Vec<f64> = get(&format!("{name}.timesteps")).to_vec1().unwrap();
        let visited: Vec<f64> = path.levels[..steps].iter().map(|l| f64::from(l.t)).collect();
        let apart = visited.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let noise = |step: u32| Ok(noises.get(step as usize - 1)?);
        let got = sampler.sample_with(&Model(&schedule), &start, &path, &noise, &mut |_| Ok(())).unwrap();
        let want = get(&format!("{name}.x"));
        let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        let error = norm(&(&got - &want).unwrap()) / norm(&want);
        // The comparison sees the difference between one sampler and the next.
        let other = get(&format!("{}.x", names[(number + 1) % names.len()]));
        told_apart += usize::from(norm(&(&got - &other).unwrap()) / norm(&want) > 1e-4);
        // diffusers computes in f32; fractions of timesteps are stored in f32.
        let fine = apart < 1e-4 && error < 1e-5;
        failed += usize::from(!fine);
        table += &format!("{name:<36} {error:.1e} {}\n", if fine { "" } else { "FAILED" });
    }
    println!("{table}");
    assert_eq!(failed, 0, "\n{table}");
    assert_eq!(names.len(), 92);
    assert_eq!(told_apart, names.len(), "settings that the comparison cannot tell from their neighbours");
}
