"""Writes the reference models and outputs of tests/parity: tiny random models of every configuration
that gen3d loads, run by PyTorch diffusers and transformers.

    python generate.py            (torch, diffusers, transformers, safetensors; versions in versions.json)

Weights are rounded to f16 before anything is computed, and stored so: both programs start from the
same numbers. Outputs are f32.
"""

import json
import math
import pathlib
import shutil

import diffusers
import numpy
import torch
import transformers
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)
torch.manual_seed(1)


def randomise(model):
    """Weights large enough that no layer is close to a no-op, then rounded to f16."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            fan_in = p[0].numel() if p.dim() > 1 else 1
            scale = 1 / math.sqrt(fan_in) if p.dim() > 1 else 0.1
            value = torch.randn(p.shape, generator=generator) * scale
            if p.dim() == 1 and "norm" in name and name.endswith("weight"):
                value += 1
            p.copy_(value.half().float())
    return model.eval()


def save(model, folder):
    """The model as its library writes it, weights in f16."""
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder)
    model.float()
    config = json.loads((folder / "config.json").read_text())
    for key in [k for k in config if k.startswith("_name") or k in ("torch_dtype", "dtype")]:
        del config[key]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def normal(*shape, key):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(key))


def write(name, tensors):
    tensors = {k: v.detach().contiguous().float() for k, v in tensors.items()}
    save_file(tensors, HERE / name / "reference.safetensors")


UNET = dict(
    sample_size=8,
    block_out_channels=(8, 16),
    layers_per_block=1,
    norm_num_groups=4,
    cross_attention_dim=12,
)
CROSS = dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)

UNETS = {
    # Stable Diffusion 1.x: 1x1 convolutions around the transformers, heads by number.
    "sd1": dict(UNET, **CROSS, attention_head_dim=2),
    # 2.x: linear projections, heads per level, upcast attention; odd sides.
    "sd2": dict(UNET, **CROSS, attention_head_dim=[2, 4], use_linear_projection=True, upcast_attention=True),
    # SDXL: deep transformers lower down, pooled text and picture sizes.
    "sdxl": dict(
        UNET,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=[2, 4],
        transformer_layers_per_block=[1, 2],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=6,
        projection_class_embeddings_input_dim=10 + 6 * 6,
    ),
    # Inpainting: mask and masked picture as further channels.
    "inpainting": dict(UNET, **CROSS, attention_head_dim=2, in_channels=9),
    # gen3d's own: camera by projection, pooled text.
    "camera": dict(
        UNET,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    ),
    # A number as the class (upscalers' noise level), the sine first, three levels, two layers.
    "timestep_class": dict(
        UNET,
        block_out_channels=(8, 8, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        class_embed_type="timestep",
        flip_sin_to_cos=False,
        freq_shift=1,
        center_input_sample=True,
    ),
}


def unet(name, config):
    model = randomise(UNet2DConditionModel(**config))
    save(model, HERE / name / "unet")
    side = (7, 9) if name == "sd2" else (8, 8)
    inputs = {
        "sample": normal(2, config.get("in_channels", 4), *side, key=1),
        "timestep": torch.tensor([981.0, 21.0]),
        "encoder_hidden_states": normal(2, 5, 12, key=2),
    }
    extra = {}
    if name == "sdxl":
        inputs["added.text_embeds"] = normal(2, 10, key=3)
        inputs["added.time_ids"] = torch.tensor([[64.0, 64, 0, 8, 64, 48], [512.0, 768, 3, 0, 512, 512]])
        extra["added_cond_kwargs"] = {k.split(".")[1]: v for k, v in inputs.items() if "added" in k}
    if name == "camera":
        inputs["class_labels"] = normal(2, 16, key=4)
    if name == "timestep_class":
        inputs["class_labels"] = torch.tensor([20.0, 350.0])
    if "class_labels" in inputs:
        extra["class_labels"] = inputs["class_labels"]
    if name == "sd1":
        shapes = [(8, 8), (8, 8), (8, 4), (16, 4)]
        down = [normal(2, c, s, s, key=20 + i) for i, (c, s) in enumerate(shapes)]
        inputs |= {f"down_residuals.{i}": r for i, r in enumerate(down)}
        inputs["mid_residual"] = normal(2, 16, 4, 4, key=30)
        extra["down_block_additional_residuals"] = tuple(down)
        extra["mid_block_additional_residual"] = inputs["mid_residual"]
    with torch.no_grad():
        output = model(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"], **extra).sample
    write(name, inputs | {"noise_pred": output})


def vae(name, **more):
    config = dict(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    model = randomise(AutoencoderKL(**(config | more)))
    save(model, HERE / name / "vae")
    image, latent = normal(2, 3, 16, 12, key=5), normal(2, 4, 8, 6, key=6)
    image.requires_grad_(True)
    mean = model.encode(image).latent_dist.mean
    weights = normal(*mean.shape, key=7)
    (grad,) = torch.autograd.grad((mean * weights).sum(), image)
    with torch.no_grad():
        decoded = model.decode(latent).sample
    outputs = {"latent_mean": mean, "decoded": decoded, "grad_image": grad}
    write(name, {"image": image, "latent": latent, "grad_latent": weights} | outputs)


def text(name, kind, **more):
    config = CLIPTextConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=10,
        bos_token_id=38,
        **more,
    )
    model = randomise(kind(config))
    save(model, HERE / name / "text_encoder")
    ids = torch.tensor([[38, 5, 6, 7, 39, 39, 39, 39, 39, 39], [38, 1, 2, 3, 4, 5, 6, 7, 8, 39]])
    with torch.no_grad():
        out = model(ids)
    pooled = out.text_embeds if kind is CLIPTextModelWithProjection else out.pooler_output
    write(name, {"input_ids": ids, "text_hidden_states": out.last_hidden_state, "pooled": pooled})


def control(name, **more):
    model = randomise(
        ControlNetModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=12,
            attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            conditioning_embedding_out_channels=(4, 8, 8, 12),
            **more,
        )
    )
    save(model, HERE / name / "controlnet")
    inputs = {
        "sample": normal(2, 4, 8, 8, key=8),
        "timestep": torch.tensor([500.0, 3.0]),
        "encoder_hidden_states": normal(2, 5, 12, key=9),
        "controlnet_cond": normal(2, 3, 64, 64, key=10).abs(),
    }
    with torch.no_grad():
        down, mid = model(*inputs.values(), return_dict=False)
    outputs = {f"control.down.{i}": d for i, d in enumerate(down)} | {"control.mid": mid}
    write(name, inputs | outputs)


def main():
    for name, config in UNETS.items():
        unet(name, config)
    vae("vae")
    vae("vae_plain", use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False)
    text("clip", CLIPTextModel, hidden_act="quick_gelu", eos_token_id=2)
    text("open_clip", CLIPTextModelWithProjection, hidden_act="gelu", eos_token_id=39, projection_dim=6)
    control("controlnet")
    control("controlnet_bgr", controlnet_conditioning_channel_order="bgr")
    versions = {m.__name__: m.__version__ for m in (torch, diffusers, transformers, numpy)}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


main()
