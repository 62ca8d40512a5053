//! Samplers by the names that people know them by.

use super::{Algorithm, Dpm, Midway, Sampler, trajectory};
use crate::prior::schedule::Schedule;
use crate::sample::Trajectory;
use crate::{Error, Result};

/// All names that [`by_name`] understands.
pub const NAMES: [&str; 17] = [
    "ddpm",
    "ddim",
    "dpm-solver-1",
    "dpm-solver-2",
    "dpm-solver-3",
    "dpm-solver++",
    "dpm-solver++-2s",
    "dpm-solver++-3m",
    "dpm-solver++-sde",
    "unipc",
    "euler",
    "euler-ancestral",
    "heun",
    "lcm",
    "reverse-sde",
    "probability-flow",
    "rk45",
];

/// The sampler of that name and the levels it visits in `steps` steps.
///
/// # Errors
/// [`Error::Invalid`] for an unknown name or a number of steps that the schedule cannot supply.
pub fn by_name(name: &str, schedule: &Schedule, steps: usize) -> Result<(Sampler, Trajectory)> {
    let dpm = |algorithm, order, multistep| {
        Sampler::Dpm(Dpm { algorithm, order, multistep, midway: Midway::Midpoint })
    };
    let sampler = match name {
        "ddpm" => Sampler::Ddpm { large_variance: false },
        "ddim" | "euler" => Sampler::Ddim { eta: 0.0 },
        "dpm-solver-1" => dpm(Algorithm::Noise, 1, false),
        "dpm-solver-2" => dpm(Algorithm::Noise, 2, false),
        "dpm-solver-3" => dpm(Algorithm::Noise, 3, false),
        "dpm-solver++" => Sampler::Dpm(Dpm::PLUS_PLUS_2M),
        "dpm-solver++-2s" => dpm(Algorithm::Data, 2, false),
        "dpm-solver++-3m" => dpm(Algorithm::Data, 3, true),
        "dpm-solver++-sde" => dpm(Algorithm::SdeData, 2, true),
        "unipc" => Sampler::UniPc { order: 2 },
        "euler-ancestral" => Sampler::EulerAncestral,
        "heun" => Sampler::Heun,
        "lcm" => Sampler::Lcm { timestep_scaling: 10.0 },
        "reverse-sde" => Sampler::ReverseSde,
        "probability-flow" => Sampler::ProbabilityFlow,
        "rk45" => Sampler::RungeKutta45 { tolerance: 1e-3 },
        _ => {
            return Err(Error::invalid("--sampler", format!("unknown sampler {name:?}"))
                .hint(format!("one of: {}", NAMES.join(", "))));
        }
    };
    let path = match name {
        "euler" => Trajectory::sigmas(schedule, steps)?,
        _ => trajectory(schedule, &sampler, steps)?,
    };
    Ok((sampler, path))
}
