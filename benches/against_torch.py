"""gen3d against PyTorch + diffusers on this machine's processor, same random weights, alternating runs.

    python benches/against_torch.py models  --models DIR     random full-size models, written once (9 GB)
    python benches/against_torch.py verify  --models DIR --gen3d BIN     parity at full size
    python benches/against_torch.py compare --models DIR --gen3d BIN     times, ratio for each pair
    python benches/against_torch.py torch   --models DIR --operation unet    one PyTorch measurement

Needs torch, diffusers, transformers, safetensors, peft. Both sides run on as many threads as --threads says
(gen3d by RAYON_NUM_THREADS), in processes of their own; "peak" is a whole process's largest memory.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

OPERATIONS = ["text", "unet", "unet-2x32", "vae", "lora"]

UNET15 = dict(
    sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280),
)
UNET21 = dict(
    sample_size=96, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20],
    block_out_channels=(320, 640, 1280, 1280), use_linear_projection=True, upcast_attention=True,
)
TEXT15 = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
              num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu", eos_token_id=2,
              bos_token_id=49406)
TEXT21 = dict(TEXT15, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
              hidden_act="gelu")
VAE = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
VERSIONS = {"sd15": (UNET15, TEXT15), "sd21": (UNET21, TEXT21)}


def normal(*shape, key):
    import torch
    return torch.randn(*shape, generator=torch.Generator().manual_seed(key))


def write_models(folder):
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    for name, (unet, text) in VERSIONS.items():
        torch.manual_seed(1)
        for part, make in [
            ("text_encoder", lambda: CLIPTextModel(CLIPTextConfig(**text))),
            ("vae", lambda: AutoencoderKL(**VAE)),
            ("unet", lambda: UNet2DConditionModel(**unet)),
        ]:
            place = folder / name / part
            if not place.exists():
                make().save_pretrained(place, max_shard_size="10GB")
                print(place)


def load(folder, part):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    kind = {"text_encoder": CLIPTextModel, "vae": AutoencoderKL, "unet": UNet2DConditionModel}[part]
    return kind.from_pretrained(folder / part).float().eval().requires_grad_(False)


def torch_operation(folder, operation):
    """A function that does the operation once."""
    import torch

    if operation == "text":
        model = load(folder, "text_encoder")
        ids = torch.arange(77)[None] * 37 % model.config.vocab_size
        return lambda: model(ids)
    if operation == "vae":
        model = load(folder, "vae")
        image = normal(1, 3, 256, 256, key=0).requires_grad_(True)

        def run():
            image.grad = None
            model.encode(image).latent_dist.mean.sum().backward()

        return run
    model = load(folder, "unet")
    batch, side = (2, 32) if operation == "unet-2x32" else (1, 64)
    x, t = normal(batch, 4, side, side, key=1), torch.full((batch,), 500.0)
    context = normal(batch, 77, model.config.cross_attention_dim, key=2)
    if operation != "lora":
        def run():
            with torch.no_grad():
                model(x, t, context)

        return run
    from peft import LoraConfig
    model.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    target = normal(1, 4, 64, 64, key=4)

    def run():
        adam.zero_grad()
        torch.nn.functional.mse_loss(model(x, t, context).sample, target).backward()
        adam.step()

    return run


def torch_measure(folder, operation, repeats, threads):
    import torch
    torch.set_num_threads(threads)
    run = torch_operation(folder, operation)
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"operation": operation, "seconds": statistics.median(times), "peak_mib": peak}


def compare(args):
    folder = args.models / args.version
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}

    def ask(command):
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return json.loads(out.splitlines()[-1])

    common = ["--repeats", str(args.repeats)]
    print("operation        gen3d s  torch s  ratio of each pair          peak MiB gen3d / torch")
    for operation in args.operation or OPERATIONS:
        pairs = []
        for _ in range(args.pairs):
            ours = ask([args.gen3d, "bench", "prior", "--prior", folder, "--operation", operation, "--json", *common])
            theirs = ask([sys.executable, __file__, "torch", "--models", args.models, "--version", args.version,
                          "--operation", operation, "--threads", str(args.threads), *common])
            pairs.append((ours, theirs))
        ratios = " ".join(f"{a['seconds'] / b['seconds']:.2f}" for a, b in pairs)
        middle = [statistics.median(p[i]["seconds"] for p in pairs) for i in (0, 1)]
        peaks = [max(p[i]["peak_mib"] for p in pairs) for i in (0, 1)]
        print(f"{operation:<15} {middle[0]:8.3f} {middle[1]:8.3f}  {ratios:<26}  {peaks[0]:.0f} / {peaks[1]:.0f}",
              flush=True)


def verify(args):
    """One reference file a part, so that no two large models are in memory."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(args.threads)
    for name in VERSIONS:
        folder = args.models / name
        references = {}
        model = load(folder, "text_encoder")
        ids = torch.tensor([[49406, 320, 1746, 4904, 49407] + [49407] * 72])
        out = model(ids)
        references["text"] = {"input_ids": ids, "text_hidden_states": out.last_hidden_state,
                              "pooled": out.pooler_output}
        model = load(folder, "vae")
        image, latent = normal(1, 3, 128, 128, key=5).requires_grad_(True), normal(1, 4, 16, 16, key=6)
        mean = model.encode(image).latent_dist.mean
        weights = normal(*mean.shape, key=7)
        (grad,) = torch.autograd.grad((mean * weights).sum(), image)
        references["vae"] = {"image": image, "latent": latent, "grad_latent": weights, "latent_mean": mean,
                             "decoded": model.decode(latent).sample, "grad_image": grad}
        model = load(folder, "unet")
        inputs = {"sample": normal(1, 4, 32, 32, key=1), "timestep": torch.tensor([981.0]),
                  "encoder_hidden_states": normal(1, 77, model.config.cross_attention_dim, key=2)}
        with torch.no_grad():
            references["unet"] = inputs | {"noise_pred": model(*inputs.values()).sample}
        del model
        for part, tensors in references.items():
            file = folder / f"{part}.reference.safetensors"
            save_file({k: v.detach().contiguous().float() for k, v in tensors.items()}, file)
            print(name, part, flush=True)
            subprocess.run([args.gen3d, "models", "verify", folder, "--against", file], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["models", "verify", "compare", "torch"])
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--gen3d", default="gen3d")
    parser.add_argument("--version", choices=list(VERSIONS), default="sd15")
    parser.add_argument("--operation", action="append", choices=OPERATIONS)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.task == "models":
        write_models(args.models)
    elif args.task == "verify":
        verify(args)
    elif args.task == "compare":
        compare(args)
    else:
        operation = (args.operation or ["unet"])[0]
        print(json.dumps(torch_measure(args.models / args.version, operation, args.repeats, args.threads)))


if __name__ == "__main__":
    main()
