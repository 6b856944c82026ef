"""One photo with two supports through a size as large as it is, with random weights: seconds, shapes and peak memory,
beside what `dsvlfs info` computes. On a CPU `paper` in bfloat16 takes 17 GiB and minutes; with `--device cuda` there is
a training step as well."""

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.inference.encoded import View
from dsvlfs.measuring.costs import TEXT_TOKENS, cost
from dsvlfs.parts.semantic_encoder import Question

GIB = 2**30
SHOTS = 2


def build(config: DSVLFSConfig, dtype: torch.dtype, device: torch.device) -> DSVLFSModel:
    """The model with weights of chance, made in their precision and place, one at a time."""
    with torch.device("meta"):
        model = DSVLFSModel(config, load_bases=False)
    model.to(dtype).to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                _fill(module, name, buffer)
    return model.eval()


def _fill(module: nn.Module, name: str, buffer: Tensor) -> None:
    """What a module computes for itself, and lost when it was made without memory."""
    if "inv_freq" in name:
        steps = torch.arange(len(buffer), device=buffer.device, dtype=torch.float32) / len(buffer)
        buffer.copy_(10000.0**-steps)
    elif "position_ids" in name:
        buffer.copy_(torch.arange(buffer.numel(), device=buffer.device).view_as(buffer))
    elif buffer.is_floating_point():
        buffer.normal_()
    else:
        buffer.zero_()


class Clock:
    """Seconds of each step, and the most memory that anything took."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, float] = {}

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        """Runs a step."""
        self._wait()
        start = time.perf_counter()
        result = step()
        self._wait()
        self.seconds[name] = time.perf_counter() - start
        self.peaks[name] = self.peak()
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak(self) -> float:
        """GiB, of the process or of the GPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / GIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def views(config: DSVLFSConfig, count: int, dtype: torch.dtype, device: torch.device) -> View:
    """Photos of chance."""
    side, vlm_side = config.image_size, config.vlm_image_size
    pixels, vlm_pixels = (torch.randn(count, 3, s, s, device=device, dtype=dtype) for s in (side, vlm_side))
    return View(pixels, vlm_pixels, (side, side), (side, side))


def question(config: DSVLFSConfig, device: torch.device) -> Question:
    """Of as many tokens as `dsvlfs info` counts."""
    llava = config.llava_config()
    ids = torch.full((1, llava.image_seq_length + TEXT_TOKENS), 7, device=device)
    ids[:, 4 : 4 + llava.image_seq_length] = llava.image_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -4:] = ids[:, -4:]
    return Question(ids, torch.ones_like(ids), labels, torch.tensor([ids.shape[1] - 2], device=device))


@torch.inference_mode()
def query(model: DSVLFSModel, clock: Clock) -> dict[str, list[int]]:
    """A query with two supports, step by step; gives the shapes of what each step makes."""
    config, device, dtype = model.config, model.device, model.dtype
    layers, masks = [], []
    for number in range(SHOTS):
        features = clock(f"support {number + 1}", lambda: model.frozen_features(views(config, 1, dtype, device)))
        square = torch.zeros(1, config.support_size, config.support_size, device=device, dtype=dtype)
        square[:, 100:500, 100:500] = 1
        own, mask = model.support_features(features, square)
        layers.append(own)
        masks.append(mask)
    support = [torch.cat(same) for same in zip(*layers)]
    features = clock("query's encoders", lambda: model.frozen_features(views(config, 1, dtype, device)))
    encoder = model.semantic_encoder
    semantic = clock("language model", lambda: encoder.prompt(features["tokens"], question(config, device)))
    embedding = model.image_embedding(features)
    visual = clock(
        "dense matching", lambda: model.visual_prompt(features, support, torch.cat(masks), embedding.shape[-1])
    )
    logits = clock(
        "mask decoder",
        lambda: model.mask_decoder(embedding.expand(SHOTS, -1, -1, -1), semantic.expand(SHOTS, -1), visual),
    )
    made = {"features": features[config.correlation_layers[0]], "support": support[0], "semantic prompt": semantic}
    made |= {"visual prompts": visual, "logits": logits}
    if not logits.isfinite().all():
        raise SystemExit("The logits are not finite.")
    return {name: list(tensor.shape) for name, tensor in made.items()}


def training_step(model: DSVLFSModel, clock: Clock) -> None:
    """A step of AdamW with a batch of one, the language model's activations computed again."""
    config, device = model.config, model.device
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train().gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    yes = torch.ones(1, dtype=torch.bool, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            features, shown = (model.frozen_features(views(config, 1, torch.bfloat16, device)) for _ in range(2))
            square = torch.zeros(1, config.support_size, config.support_size, device=device)
            square[:, 100:500, 100:500] = 1
            layers, mask = model.support_features(shown, square)
            target = torch.zeros(1, 256, 256, device=device)
            asked = question(config, device)
            loss = model(features, layers, mask, asked, target, use_semantic=yes, use_visual=yes).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # AdamW's moments are there from now on
    clock("training step", step)


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("base", "paper"), default="paper")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--train", action="store_true", help="a training step as well")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    config = getattr(DSVLFSConfig, arguments.size)()
    computed = cost(config, SHOTS)
    clock = Clock(device)
    before = clock.peak()
    model = clock("building", lambda: build(config, dtype, device))
    shapes = query(model, clock)
    result: dict[str, Any] = {
        "size": arguments.size,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {arguments.device}",
        "dtype": arguments.dtype,
        "shapes": shapes,
        "peak_gib": clock.peak() - (before if device.type == "cpu" else 0),
        "computed_gib": computed.memory(arguments.dtype, training=False) / GIB,
    }
    if arguments.train:
        training_step(model, clock)
        result["training_peak_gib"] = clock.peak() - (before if device.type == "cpu" else 0)
        result["training_computed_gib"] = computed.memory(arguments.dtype, training=True) / GIB
    result["peak_after_gib"] = {name: round(peak, 2) for name, peak in clock.peaks.items()}
    result["seconds"] = {name: round(seconds, 2) for name, seconds in clock.seconds.items()}
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
