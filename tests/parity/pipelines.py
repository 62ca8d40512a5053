"""Writes the reference pipelines of tests/parity/pipelines: whole tiny random priors (tokenizers, text
encoders, U-Net, autoencoder, scheduler), and the latents that diffusers' pipelines paint with them from
given noise.

    python pipelines.py           (as generate.py)
"""

import json
import shutil

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as img2img_module
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import generate as g

HERE = g.HERE / "pipelines"
# diffusers 0.42 reaches for transformers 4's inner model where it skips blocks.
CLIPTextModel.text_model = property(lambda self: self)
LENGTH = 20
MERGES = [("b", "l"), ("bl", "u"), ("blu", "e</w>"), ("j", "a"), ("ja", "y</w>"), ("o", "n</w>"), ("m", "a")]
TEXTS = [
    "a blue jay",
    "  Blue  JAY's 42 macarons, on (a) plate!!",
    "Zwölf Häher; naïve ☃ don't",
    "",
    "blue jay on blue jay on blue jay on blue jay on a",
]


def byte_alphabet():
    """GPT-2's printable stand-ins for bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(rest))]


def tokenizer(folder, pad):
    letters = byte_alphabet()
    tokens = letters + [c + "</w>" for c in letters] + [a + b for a, b in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {t: i for i, t in enumerate(tokens)}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES))
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True,
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder), len(tokens)


def text_encoder(cls, vocab, width, **more):
    config = dict(
        vocab_size=vocab, hidden_size=width, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=vocab - 2, eos_token_id=2, pad_token_id=vocab - 1,
    )
    return g.randomise(cls(CLIPTextConfig(**(config | more))))


def vae(scaling_factor=0.3):
    model = g.randomise(AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, latent_channels=4, scaling_factor=scaling_factor,
    ))
    # diffusers samples the posterior where gen3d takes its mean: leave it no variance.
    with torch.no_grad():
        model.quant_conv.weight[4:] = 0
        model.quant_conv.bias[4:] = -30
    return model


def scheduler():
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )


def picture(size, key):
    w, h = size
    values = (torch.rand(h, w, 3, generator=torch.Generator().manual_seed(key)) * 255).byte()
    return Image.fromarray(values.numpy())


def bytes_of(image):
    return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).reshape(
        image.height, image.width, 3
    ).float()


def save_parts(folder, **parts):
    for name, model in parts.items():
        if hasattr(model, "save_pretrained") and name.startswith(("unet", "vae", "text", "controlnet")):
            g.save(model, folder / name)
        elif name == "scheduler":
            model.save_pretrained(folder / name)


def unet(**more):
    return g.randomise(UNet2DConditionModel(**(dict(g.UNET, **g.CROSS, attention_head_dim=2) | more)))


def run(cases, name, pipe, folder, size, noise, settings, tensors=None, **more):
    """One case: the pipeline's latents."""
    w, h = size
    generator = torch.Generator().manual_seed(0)
    arguments = dict(
        num_inference_steps=settings["steps"], guidance_scale=settings["guidance_scale"],
        prompt=settings["prompt"], negative_prompt=settings["negative_prompt"] or None,
        clip_skip=settings["clip_skip"] or None, output_type="latent", generator=generator,
    )
    if not isinstance(pipe, StableDiffusionImg2ImgPipeline):
        arguments |= dict(latents=noise.clone())
        if not isinstance(pipe, StableDiffusionControlNetPipeline):
            arguments |= dict(width=w, height=h)
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(**arguments, **more).images
    reference = {"noise": noise, "latents": latents} | (tensors or {})
    save_file({k: v.detach().contiguous().float() for k, v in reference.items()}, HERE / f"{name}.safetensors")
    cases.append({"name": name, "prior": folder, "size": list(size)} | settings)


def settings(**more):
    base = dict(
        prompt="a blue jay (small) on 3 macarons", negative_prompt="ugly", guidance_scale=5.0, steps=4,
        clip_skip=0,
    )
    return base | more


def stable_diffusion(cases):
    """1.x: plain, clip skip, from a picture, inpainting model, ControlNets."""
    folder = HERE / "sd"
    tok, vocab = tokenizer(folder / "tokenizer", "<|endoftext|>")
    text = text_encoder(CLIPTextModel, vocab, 12, hidden_act="quick_gelu")
    parts = dict(vae=vae(), text_encoder=text, tokenizer=tok, unet=unet(), scheduler=scheduler())
    save_parts(folder, **parts)
    rest = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    size = (24, 16)
    noise = g.normal(1, 4, 8, 12, key=21)
    pipe = StableDiffusionPipeline(**parts, **rest)
    run(cases, "plain", pipe, "sd", size, noise, settings())
    run(cases, "clip_skip", pipe, "sd", size, noise, settings(clip_skip=1, negative_prompt=""))

    start = picture(size, 3)
    img2img_module.randn_tensor = lambda *a, **k: noise.clone()
    pipe = StableDiffusionImg2ImgPipeline(**parts, **rest)
    run(cases, "img2img", pipe, "sd", size, noise, settings(steps=5, strength=0.7), {"init": bytes_of(start)},
        image=start, strength=0.7)

    save_parts(HERE / "inpaint", unet=unet(in_channels=9))
    painter = StableDiffusionInpaintPipeline(**(parts | dict(unet=unet(in_channels=9))), **rest)
    mask = Image.new("L", size)
    mask.paste(255, (6, 2, 15, 11))
    run(cases, "inpaint", painter, "inpaint", size, noise, settings(strength=1.0),
        {"init": bytes_of(start), "mask": bytes_of(mask)}, image=start, mask_image=mask, strength=1.0)

    nets = []
    for i, order in enumerate(("rgb", "bgr")):
        config = {k: v for k, v in g.UNET.items() if k != "sample_size"}
        net = ControlNetModel(
            **config, down_block_types=g.CROSS["down_block_types"], attention_head_dim=2,
            conditioning_embedding_out_channels=(4, 8), controlnet_conditioning_channel_order=order,
        )
        nets.append(g.randomise(net))
        save_parts(HERE, **{f"controlnet{i}": nets[-1]})
    hints = [picture(size, 4), picture(size, 5)]
    tensors = {f"control.{i}": bytes_of(h) for i, h in enumerate(hints)}
    pipe = StableDiffusionControlNetPipeline(**parts, **rest, controlnet=nets)
    for guess in (False, True):
        run(cases, "guess" if guess else "control", pipe, "sd", size, noise,
            settings(scales=[0.7, 1.2], guess=guess), tensors, image=hints,
            controlnet_conditioning_scale=[0.7, 1.2], guess_mode=guess)


def xl(cases):
    """Two text encoders, the pooled text, sizes; with and without a negative prompt."""
    folder = HERE / "xl"
    first, vocab = tokenizer(folder / "tokenizer", "<|endoftext|>")
    second, _ = tokenizer(folder / "tokenizer_2", "!")
    # Sizes that a single file's shapes imply: heads 64 wide or one, SDXL's width of the picture sizes.
    config = dict(g.UNETS["sdxl"], layers_per_block=2, attention_head_dim=1, norm_num_groups=8)
    config |= dict(addition_time_embed_dim=256, projection_class_embeddings_input_dim=10 + 6 * 256)
    parts = dict(
        vae=vae(0.13025),
        text_encoder=text_encoder(CLIPTextModel, vocab, 8, hidden_act="quick_gelu", num_attention_heads=1),
        text_encoder_2=text_encoder(
            CLIPTextModelWithProjection, vocab, 4, hidden_act="gelu", projection_dim=10, num_attention_heads=1),
        tokenizer=first,
        tokenizer_2=second,
        unet=g.randomise(UNet2DConditionModel(**config)),
        scheduler=scheduler(),
    )
    save_parts(folder, **parts)
    (folder / "model_index.json").write_text(json.dumps({"force_zeros_for_empty_prompt": True}))
    pipe = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    size, noise = (16, 24), g.normal(1, 4, 12, 8, key=22)
    run(cases, "xl", pipe, "xl", size, noise, settings())
    run(cases, "xl_empty", pipe, "xl", size, noise, settings(negative_prompt="", clip_skip=1))
    single_xl(folder / "single.safetensors", parts)


def single_xl(path, parts):
    """The same prior in one file under the original names; diffusers' conversion must take it back."""
    from diffusers.loaders import single_file_utils as convert

    named = {"text_model." + k.removeprefix("text_model."): v for k, v in parts["text_encoder"].state_dict().items()}
    named = {k: v for k, v in named.items() if "position_ids" not in k}
    file = g.original_names(parts["unet"].state_dict(), parts["vae"].state_dict(), named, False)
    first = "cond_stage_model.transformer."
    file = {n.replace(first, "conditioner.embedders.0.transformer."): p for n, p in file.items()}
    second = {k: v for k, v in parts["text_encoder_2"].state_dict().items() if "position_ids" not in k}
    file |= g.open_clip_names(second, "conditioner.embedders.1.model.", unused_block=False)
    unet = parts["unet"]
    back = convert.convert_ldm_unet_checkpoint(dict(file), dict(unet.config))
    assert set(back) == set(unet.state_dict()), set(back) ^ set(unet.state_dict())
    assert all(torch.equal(back[k], v) for k, v in unet.state_dict().items())
    save_file({k: v.half().contiguous() for k, v in file.items()}, path)


def tokens():
    tok = CLIPTokenizer.from_pretrained(HERE / "sd" / "tokenizer")
    ids = [tok(t, padding="max_length", truncation=True).input_ids for t in TEXTS]
    return [{"text": t, "ids": i} for t, i in zip(TEXTS, ids)]


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    cases = []
    stable_diffusion(cases)
    xl(cases)
    (HERE / "cases.json").write_text(json.dumps({"cases": cases, "tokens": tokens()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
