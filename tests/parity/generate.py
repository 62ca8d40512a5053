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
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
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


def vjp(place, model, inputs, run):
    """Pulls a random weighting of the output back to the inputs and to every parameter. Of a parameter's
    gradient g two numbers are kept, its norm and the sum of g_i cos(i) in memory order."""
    for x in inputs.values():
        x.requires_grad_(True)
    output = run()
    weights = normal(*output.shape, key=90)
    names, params = zip(*sorted(model.named_parameters()))
    grads = torch.autograd.grad((output * weights).sum(), [*inputs.values(), *params])
    tensors = {"weights": weights} | {f"input.{k}": g for k, g in zip(inputs, grads)}
    for name, g in zip(names, grads[len(inputs):]):
        flat = g.double().flatten()
        cosines = torch.cos(torch.arange(len(flat), dtype=torch.float64))
        tensors[f"param.{name}"] = torch.stack([flat.norm(), (flat * cosines).sum()])
    for x in inputs.values():
        x.requires_grad_(False)
    folder = HERE / place
    tensors = {k: v.detach().contiguous().float() for k, v in tensors.items()}
    save_file(tensors, folder.parent / f"vjp_{folder.name}.safetensors")
    return output.detach()


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
    output = vjp(
        f"{name}/unet", model, {k: inputs[k] for k in ("sample", "encoder_hidden_states")},
        lambda: model(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"], **extra).sample,
    )
    write(name, inputs | {"noise_pred": output})


class Decoding(torch.nn.Module):
    """The half of an autoencoder that a picture comes out of, its parameters under their own names."""

    def __init__(self, model):
        super().__init__()
        self.decoder = model.decoder
        if getattr(model, "post_quant_conv", None) is not None:
            self.post_quant_conv = model.post_quant_conv


def tiny_vae(name):
    model = randomise(AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 2, 1), num_decoder_blocks=(2, 1, 1),
    ))
    save(model, HERE / name / "vae")
    image, latent = normal(2, 3, 16, 12, key=5), normal(2, 4, 4, 3, key=6)
    image.requires_grad_(True)
    mean = model.encode(image).latents
    weights = normal(*mean.shape, key=7)
    (grad,) = torch.autograd.grad((mean * weights).sum(), image)
    decoded = model.decode(latent).sample
    outputs = {"latent_mean": mean, "decoded": decoded, "grad_image": grad}
    write(name, {"image": image, "latent": latent, "grad_latent": weights} | outputs)


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
    decoded = vjp(f"{name}/vae", Decoding(model), {"latent": latent}, lambda: model.decode(latent).sample)
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
    out = model(ids)
    vjp(f"{name}/text_encoder", model.text_model if hasattr(model, "text_model") else model, {},
        lambda: model(ids).last_hidden_state)
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


def lora(name, base):
    """Adapters on every attention of the U-Net of `base`, in two namings; the references are of the
    model with the adapters."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    config = UNETS[base]
    model = randomise(UNet2DConditionModel(**config))
    save(model, HERE / name / "unet")
    wanted = ["to_q", "to_k", "to_v", "to_out.0"]
    model.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=wanted))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for n, p in sorted(model.named_parameters()):
            if "lora_" in n:
                p.copy_((torch.randn(p.shape, generator=generator) * 0.4).half().float())
    tensors = get_peft_model_state_dict(model)
    peft, kohya = {}, {}
    for n, p in tensors.items():
        p = p.detach().contiguous()
        peft["unet." + n] = p
        layer, kind = n.rsplit(".lora_", 1)
        layer = "lora_unet_" + layer.replace(".", "_")
        kohya[f"{layer}.lora_{'down' if kind.startswith('A') else 'up'}.weight"] = p
        kohya[f"{layer}.alpha"] = peft[f"unet.{n.rsplit('.lora_', 1)[0]}.alpha"] = torch.tensor(3.0)
    save_file(peft, HERE / name / "peft.safetensors")
    save_file(kohya, HERE / name / "kohya.safetensors")
    inputs = {
        "sample": normal(2, 4, 8, 8, key=1),
        "timestep": torch.tensor([981.0, 21.0]),
        "encoder_hidden_states": normal(2, 5, 12, key=2),
    }
    with torch.no_grad():
        output = model(*inputs.values()).sample
    write(name, inputs | {"noise_pred": output})


def original_names(unet, vae, text, open_clip):
    """The state dicts under the names of the original code, made by inverting the rules by hand; the
    caller checks them with diffusers' own conversion."""
    out = {}

    def resnet(n):
        for new, old in [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
                         ("norm2", "out_layers.0"), ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection")]:
            n = n.replace(new, old)
        return n

    for name, p in unet.items():
        t = name.split(".")
        if t[0] in ("down_blocks", "up_blocks"):
            way, b, kind, j, rest = t[0], int(t[1]), t[2], int(t[3]), ".".join(t[4:])
            side = "input_blocks" if way == "down_blocks" else "output_blocks"
            first = 1 if way == "down_blocks" else 0
            has_attention = any(k.startswith(f"{way}.{b}.attentions") for k in unet)
            if kind == "downsamplers":
                new = f"{side}.{3 * b + 3}.0.op.{rest.split('.')[-1]}"
            elif kind == "upsamplers":
                new = f"{side}.{3 * b + 2}.{2 if has_attention else 1}.conv.{rest.split('.')[-1]}"
            elif kind == "resnets":
                new = f"{side}.{3 * b + j + first}.0.{resnet(rest)}"
            else:
                new = f"{side}.{3 * b + j + first}.1.{rest}"
        elif t[0] == "mid_block":
            new = f"middle_block.{2 * int(t[2]) if t[1] == 'resnets' else 1}."
            new += resnet(".".join(t[3:])) if t[1] == "resnets" else ".".join(t[3:])
        else:
            new = name
            for a, b in [("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
                         ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
                         ("conv_norm_out", "out.0"), ("conv_out", "out.2"), ("conv_in", "input_blocks.0.0")]:
                new = new.replace(a, b)
        out["model.diffusion_model." + new] = p
    levels = 1 + max(int(n.split(".")[2]) for n in vae if n.startswith("decoder.up_blocks"))
    for name, p in vae.items():
        new = name
        if ".mid_block.attentions.0." in name:
            head, rest = name.split(".mid_block.attentions.0.")
            for a, b in [("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")]:
                rest = rest.replace(a, b)
            p = p[:, :, None, None] if p.dim() == 2 else p
            new = f"{head}.mid.attn_1.{rest}"
        elif ".mid_block.resnets." in name:
            head, rest = name.split(".mid_block.resnets.")
            new = f"{head}.mid.block_{int(rest[0]) + 1}{rest[1:]}"
        elif "_blocks." in name:
            t = name.split(".")
            level = int(t[2]) if t[1] == "down_blocks" else levels - 1 - int(t[2])
            way = t[1][: -len("_blocks")]
            if t[3] == "resnets":
                rest = ".".join(t[5:]).replace("conv_shortcut", "nin_shortcut")
                new = f"{t[0]}.{way}.{level}.block.{t[4]}.{rest}"
            else:
                new = f"{t[0]}.{way}.{level}.{way}sample.conv.{t[-1]}"
        new = new.replace("conv_norm_out", "norm_out")
        out["first_stage_model." + new] = p
    if not open_clip:
        out |= {"cond_stage_model.transformer." + n: p for n, p in text.items()}
        return out
    return out | open_clip_names(text, "cond_stage_model.model.", unused_block=True)


def open_clip_names(text, head, unused_block):
    """A text encoder under the names of open_clip; with a last block that Stable Diffusion 2 does not use."""
    out = {}
    bare = {n.removeprefix("text_model."): p for n, p in text.items()}
    out[head + "token_embedding.weight"] = bare.pop("embeddings.token_embedding.weight")
    out[head + "positional_embedding"] = bare.pop("embeddings.position_embedding.weight")
    layers = 1 + max(int(n.split(".")[2]) for n in bare if n.startswith("encoder.layers"))
    for kind in ("weight", "bias"):
        out[head + f"ln_final.{kind}"] = bare.pop(f"final_layer_norm.{kind}")
        for i in range(layers):
            old, new = f"encoder.layers.{i}.", head + f"transformer.resblocks.{i}."
            qkv = [bare.pop(f"{old}self_attn.{x}_proj.{kind}") for x in "qkv"]
            out[f"{new}attn.in_proj_{kind}"] = torch.cat(qkv)
            for a, b in [("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                         ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")]:
                out[f"{new}{b}.{kind}"] = bare.pop(f"{old}{a}.{kind}")
            if unused_block and i == layers - 1:
                for n in [n for n in out if n.startswith(new)]:
                    out[n.replace(f"resblocks.{i}.", f"resblocks.{layers}.")] = torch.ones_like(out[n])
    if "text_projection.weight" in bare:
        out[head + "text_projection"] = bare.pop("text_projection.weight").T
        out[head + "logit_scale"] = torch.tensor(4.6)
    assert not bare, bare.keys()
    return out


def single_file(name, second):
    """A whole checkpoint under the original names."""
    from diffusers.loaders import single_file_utils as convert

    context = 12
    unet_config = dict(
        UNET, **CROSS, attention_head_dim=1 if second else 8, use_linear_projection=second
    )
    unet_config |= dict(layers_per_block=2, norm_num_groups=8)
    unet = randomise(UNet2DConditionModel(**unet_config))
    vae = randomise(AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, latent_channels=4, layers_per_block=2,
    ))
    text = randomise(CLIPTextModel(CLIPTextConfig(
        vocab_size=40, hidden_size=8 if second else 12, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=1, max_position_embeddings=10, hidden_act="gelu" if second else "quick_gelu",
        bos_token_id=38, eos_token_id=2,
    )))
    text_dict = {"text_model." + k.removeprefix("text_model."): v for k, v in text.state_dict().items()}
    text_dict = {k: v for k, v in text_dict.items() if "position_ids" not in k}
    file = original_names(unet.state_dict(), vae.state_dict(), text_dict, second)
    back = convert.convert_ldm_unet_checkpoint(dict(file), dict(unet.config))
    assert set(back) == set(unet.state_dict()), set(back) ^ set(unet.state_dict())
    assert all(torch.equal(back[k], v) for k, v in unet.state_dict().items())
    back = convert.convert_ldm_vae_checkpoint(dict(file), dict(vae.config))
    assert set(back) == set(vae.state_dict()), set(back) ^ set(vae.state_dict())
    assert all(torch.equal(back[k].flatten(), v.flatten()) for k, v in vae.state_dict().items())
    (HERE / name).mkdir(exist_ok=True)
    file["alphas_cumprod"] = torch.zeros(1000)
    save_file({k: v.half().contiguous() for k, v in file.items()}, HERE / name / "model.safetensors")
    ids = torch.tensor([[38, 5, 6, 7, 39, 39, 39, 39, 39, 39]])
    inputs = {
        "input_ids": ids,
        "sample": normal(1, 4, 8, 8, key=1),
        "timestep": torch.tensor([981.0]),
        "encoder_hidden_states": normal(1, 5, context, key=2),
        "image": normal(1, 3, 8, 8, key=5),
        "latent": normal(1, 4, 4, 4, key=6),
    }
    with torch.no_grad():
        outputs = {
            "text_hidden_states": text(ids).last_hidden_state,
            "noise_pred": unet(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]).sample,
            "latent_mean": vae.encode(inputs["image"]).latent_dist.mean,
            "decoded": vae.decode(inputs["latent"]).sample,
        }
    write(name, inputs | outputs)


def main():
    lora("lora", "sd1")
    single_file("single1", False)
    single_file("single2", True)
    for name, config in UNETS.items():
        unet(name, config)
    tiny_vae("vae_tiny")
    vae("vae")
    vae("vae_plain", use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False)
    text("clip", CLIPTextModel, hidden_act="quick_gelu", eos_token_id=2)
    text("open_clip", CLIPTextModelWithProjection, hidden_act="gelu", eos_token_id=39, projection_dim=6)
    control("controlnet")
    control("controlnet_bgr", controlnet_conditioning_channel_order="bgr")
    versions = {m.__name__: m.__version__ for m in (torch, diffusers, transformers, numpy)}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
