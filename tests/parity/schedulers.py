"""Writes schedulers.safetensors: for each of diffusers' schedulers that gen3d has, the timesteps it
visits and the sample after the last step, from a fixed start and, where a step takes noise, fixed noise.

    python schedulers.py

The "model" answers tanh(0.7 x + t/1000), a function of the sample and the timestep that no network is
needed for. Samples are in the variance-preserving scale (k-diffusion's are multiplied by alpha).
"""

import json
import pathlib

import diffusers
import numpy
import torch
from diffusers import schedulers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
X = torch.randn(2, 8, generator=torch.Generator().manual_seed(11), dtype=torch.float32)
NOISE = torch.randn(40, 2, 8, generator=torch.Generator().manual_seed(12), dtype=torch.float32)


def model(x, t):
    return torch.tanh(0.7 * x + float(t) / 1000)


def run(scheduler, steps, k_diffusion=False):
    """All steps; noise number i for the i-th step."""
    scheduler.set_timesteps(steps)
    # Thresholding counts on a dimension after the channels.
    dynamic = getattr(scheduler.config, "thresholding", False)
    x, drawn = X[..., None].clone() if dynamic else X.clone(), []
    module = __import__(type(scheduler).__module__, fromlist=["x"])

    def noise(shape, **_):
        return NOISE[drawn[-1]].reshape(shape)

    if hasattr(module, "randn_tensor"):
        module.randn_tensor = noise
    if k_diffusion:
        x = x * (1 + scheduler.sigmas[0] ** 2) ** 0.5
    for i, t in enumerate(scheduler.timesteps):
        drawn.append(i)
        inputs = scheduler.scale_model_input(x, t)
        x = scheduler.step(model(inputs, t), t, x).prev_sample
    return torch.tensor([float(t) for t in scheduler.timesteps]), x.reshape(X.shape)


CASES = {
    "ddpm": (schedulers.DDPMScheduler, dict(SD, clip_sample=False, steps_offset=1), 10),
    "ddpm_large": (schedulers.DDPMScheduler, dict(SD, clip_sample=False, variance_type="fixed_large"), 25),
    "ddim": (schedulers.DDIMScheduler, dict(SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1), 10),
    "ddim_trailing": (schedulers.DDIMScheduler, dict(SD, clip_sample=False, timestep_spacing="trailing"), 20),
    "ddim_v": (schedulers.DDIMScheduler, dict(SD, clip_sample=False, prediction_type="v_prediction"), 25),
    "ddim_clip": (schedulers.DDIMScheduler, dict(SD, clip_sample=True, clip_sample_range=0.8), 10),
    # Grids that DDIM's own step length does not follow.
    "ddim_linspace": (schedulers.DDIMScheduler, dict(SD, clip_sample=False, timestep_spacing="linspace"), 12),
    "ddim_trailing_30": (schedulers.DDIMScheduler, dict(SD, clip_sample=False, timestep_spacing="trailing"), 30),
    "lcm": (schedulers.LCMScheduler, dict(SD), 4),
    "euler_ancestral": (schedulers.EulerAncestralDiscreteScheduler, dict(SD, timestep_spacing="linspace"), 12),
    "euler_ancestral_leading": (
        schedulers.EulerAncestralDiscreteScheduler,
        dict(SD, timestep_spacing="leading", steps_offset=1),
        12,
    ),
    "euler": (schedulers.EulerDiscreteScheduler, dict(SD, timestep_spacing="linspace"), 12),
    "euler_trailing": (schedulers.EulerDiscreteScheduler, dict(SD, timestep_spacing="trailing"), 10),
}
for algorithm in ("dpmsolver", "dpmsolver++", "sde-dpmsolver++"):
    for order in (1, 2, 3):
        for solver_type in ("midpoint", "heun"):
            if order == 3 and (algorithm.startswith("sde") or solver_type == "heun"):
                continue
            for steps in (8, 20):
                name = f"multi_{algorithm}_{order}_{solver_type}_{steps}"
                config = dict(SD, algorithm_type=algorithm, solver_order=order, solver_type=solver_type)
                config["final_sigmas_type"] = "sigma_min" if algorithm == "dpmsolver" else "zero"
                CASES[name] = (schedulers.DPMSolverMultistepScheduler, config, steps)
                if not algorithm.startswith("sde"):
                    cls = schedulers.DPMSolverSinglestepScheduler
                    CASES[name.replace("multi", "single")] = (cls, config, steps)
for order in (1, 2, 3):
    for steps in (6, 20):
        CASES[f"unipc_{order}_{steps}"] = (schedulers.UniPCMultistepScheduler, dict(SD, solver_order=order), steps)
CASES["unipc_leading"] = (
    schedulers.UniPCMultistepScheduler,
    dict(SD, timestep_spacing="leading", steps_offset=1),
    10,
)
for spacing in ("karras", "exponential", "beta"):
    more = {f"use_{spacing}_sigmas": True}
    for start in ("linspace", "leading", "trailing"):
        config = dict(SD, timestep_spacing=start, **more)
        CASES[f"euler_{spacing}_{start}"] = (schedulers.EulerDiscreteScheduler, config, 9)
    for algorithm, end in (("dpmsolver++", "zero"), ("dpmsolver", "sigma_min")):
        config = dict(SD, algorithm_type=algorithm, final_sigmas_type=end, **more)
        CASES[f"multi_{algorithm}_{spacing}"] = (schedulers.DPMSolverMultistepScheduler, config, 12)
    CASES[f"unipc_{spacing}"] = (schedulers.UniPCMultistepScheduler, dict(SD, **more), 10)
for algorithm, end in (("dpmsolver++", "zero"), ("dpmsolver", "sigma_min")):
    config = dict(SD, algorithm_type=algorithm, final_sigmas_type=end, use_lu_lambdas=True)
    CASES[f"multi_{algorithm}_lu"] = (schedulers.DPMSolverMultistepScheduler, config, 12)
DYNAMIC = dict(SD, thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1.4)
CASES["ddim_dynamic"] = (schedulers.DDIMScheduler, dict(DYNAMIC, clip_sample=False), 10)
CASES["ddpm_dynamic"] = (schedulers.DDPMScheduler, dict(DYNAMIC, clip_sample=False), 10)
CASES["multi_dpmsolver++_dynamic"] = (schedulers.DPMSolverMultistepScheduler, DYNAMIC, 12)
CASES["unipc_dynamic"] = (schedulers.UniPCMultistepScheduler, DYNAMIC, 10)


def main():
    tensors, configs = {"x": X, "noise": NOISE}, {}
    for name, (cls, config, steps) in CASES.items():
        scheduler = cls(**config)
        k_diffusion = "Euler" in cls.__name__
        timesteps, x = run(scheduler, steps, k_diffusion)
        tensors[f"{name}.timesteps"], tensors[f"{name}.x"] = timesteps, x.float().contiguous()
        configs[name] = {"steps": steps, "scheduler": json.loads(scheduler.to_json_string())}
    save_file(tensors, HERE / "schedulers.safetensors")
    (HERE / "schedulers.json").write_text(json.dumps(configs, indent=1, sort_keys=True) + "\n")


main()
