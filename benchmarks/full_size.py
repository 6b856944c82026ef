"""What a size costs as large as it is, on the device where it is to run, beside what `dsvlfs info` computes; with
random weights, made there, and without a network.

`query`: a photo with two supports through the public interface, in bfloat16 and float32, and how far the two differ.
`precision`: that difference alone, each asked once: minutes for `base` on a CPU.
`step`: training steps as `train.py` takes them, of one episode, of the settings' micro-batch, and whole ones.
`matching`: dense matching alone, beside the reference's arithmetic.

    python benchmarks/full_size.py --device cuda --out FOLDER --budget 100
    python benchmarks/full_size.py --sizes base --parts query step --dtypes bfloat16 --out FOLDER

Each part's figures are written as they come (`full_size.jsonl`, one line a part); what fails is a line as well, and the
next part goes on. On a CPU `paper` in bfloat16 takes 17 GiB and minutes; ask for one part there, for the memory is the
process's.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import missing  # noqa: F401  (before what may miss a package)

# isort: split
import device_matching
import numpy as np
import random_sizes
import torch
from accelerate.state import AcceleratorState, GradientState
from clocks import GIB, Clock
from PIL import Image
from torch import Tensor

from dsvlfs import DSVLFSModel
from dsvlfs.data.episodes import Episode
from dsvlfs.measuring.costs import cost
from dsvlfs.training import run
from dsvlfs.training.episode_losses import EpisodeLosses
from dsvlfs.training.photo_episodes import FixedEpisodes, PhotoEpisode, collate_photos
from dsvlfs.training.settings import load_config
from dsvlfs.training.trainer import Trainer

SHOTS, REPEATS = 2, 5
CONFIGS = Path(__file__).parent.parent / "train" / "configs"
SETTINGS = {"paper": "coco-20i.yaml", "base": "base-coco-20i.yaml", "toy": "coco-20i.yaml"}
PARTS = ("query", "precision", "step", "matching")
MATCHING = {"paper": (32, 1280, 64), "base": (12, 768, 64), "toy": (2, 8, 8)}
"""Layers, channels and side of the grids."""

Figures = dict[str, Any]


def photo_and_mask(seed: int) -> tuple[Image.Image, np.ndarray]:
    """Of noise, with a brighter rectangle."""
    pixels = np.random.default_rng(seed).integers(0, 128, (480, 640, 3), dtype=np.uint8)
    mask = np.zeros((480, 640), bool)
    mask[100:380, 150:500] = True
    pixels[mask] += 100
    return Image.fromarray(pixels), mask


# A query -------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def query(size: str, dtype: str, clock: Clock, outputs: dict[tuple[str, str], dict[str, Tensor]]) -> Iterator[Figures]:
    """A photo with two supports, through the public interface and step by step; keeps what the steps make."""
    started = time.perf_counter()
    model = random_sizes.for_inference(random_sizes.config_of(size), getattr(torch, dtype), clock.device)
    clock.rest()
    found: Figures = {"build_seconds": time.perf_counter() - started}
    photo, _ = photo_and_mask(0)
    examples = [photo_and_mask(seed) for seed in range(1, SHOTS + 1)]
    asked = {"description": random_sizes.description(model), "zoom": False}
    encoded, support = model.encode_query(photo), model.encode_support(examples)

    def ask(photo: Any, support: Any) -> Any:
        return model.segment(photo, random_sizes.NAME, support=support, **asked)

    result = ask(photo, support)
    clock.rest()
    found |= {"weights_gib": clock.held(), "seconds": {}}
    tasks = {
        "query, supports encoded": lambda: ask(photo, support),
        "the same, its photo encoded before": lambda: ask(encoded, support),
        "supports": lambda: model.encode_support(examples),
        "whole": lambda: ask(photo, model.encode_support(examples)),
    }
    for name, task in tasks.items():
        seconds = [clock.seconds(task) for _ in range(REPEATS if clock.device.type == "cuda" else 1)]
        found["seconds"][name] = [statistics.median(seconds), min(seconds), max(seconds)]
        if name == "query, supports encoded":
            found |= {"peak_gib": clock.peak(), "reserved_gib": clock.reserved()}
    steps, made = _steps(model, photo, support, asked, clock)
    found["seconds_of_steps"] = steps
    found["shapes"] = {name: list(tensor.shape) for name, tensor in made.items()}
    found["shapes"] |= {"mask": list(result.mask.shape), "support layers": list(support.layers[0].shape)}
    found["finite"] = all(bool(tensor.isfinite().all()) for tensor in made.values())
    found["foreground"] = float(result.mask.mean())
    outputs[size, dtype] = {name: tensor.float().cpu() for name, tensor in made.items()}
    outputs[size, dtype]["probability"] = torch.as_tensor(result.probability).float().cpu()
    yield found


@torch.inference_mode()
def precision(
    size: str, dtype: str, clock: Clock, outputs: dict[tuple[str, str], dict[str, Tensor]]
) -> Iterator[Figures]:
    """A photo with two supports, asked once; keeps its probabilities."""
    model = random_sizes.for_inference(random_sizes.config_of(size), getattr(torch, dtype), clock.device)
    photo, examples = photo_and_mask(0)[0], [photo_and_mask(seed) for seed in range(1, SHOTS + 1)]
    started = time.perf_counter()
    asked = {"description": random_sizes.description(model), "zoom": False}
    result = model.segment(photo, random_sizes.NAME, support=model.encode_support(examples), **asked)
    outputs[size, dtype] = {"probability": torch.as_tensor(result.probability).float().cpu()}
    yield {"seconds": time.perf_counter() - started, "peak_gib": clock.peak()}


def _steps(
    model: DSVLFSModel, photo: Image.Image, support: Any, asked: dict, clock: Clock
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The query step by step: seconds, and what each step makes."""
    encoder, config = model.semantic_encoder, model.config
    view = model.processor.query_view(photo)
    question = model.processor.question([(random_sizes.NAME, asked["description"])]).to(model.device)
    made: dict[str, Any] = {}

    def keep(name: str, step: Callable[[], Any]) -> Callable[[], None]:
        return lambda: made.__setitem__(name, step())

    def decode() -> Tensor:
        shots = len(made["visual prompt"])
        embedding = made["embedding"].expand(shots, -1, -1, -1)
        return model.mask_decoder(embedding, made["semantic prompt"].expand(shots, -1), made["visual prompt"])

    steps = {
        "features": lambda: model.frozen_features(view),
        "embedding": lambda: model.image_embedding(made["features"]),
        "semantic prompt": lambda: encoder.prompt(made["features"]["tokens"], question),
        "visual prompt": lambda: model.visual_prompt(
            made["features"], support.layers, support.masks, made["embedding"].shape[-1]
        ),
        "logits": decode,
    }
    seconds = {name: clock.seconds(keep(name, step)) for name, step in steps.items()}
    features = made.pop("features")
    layers = config.correlation_layers
    kept = {name: features[name] for name in {layers[0], layers[len(layers) // 2], layers[-1], "tokens"}}
    return seconds, kept | made


def differences(outputs: dict[str, dict[str, Tensor]]) -> Figures:
    """How far what bfloat16 makes is from what float32 makes: the length of the difference by that of the exact, the
    cosine of both; of logits and probabilities also the largest and the mean change, beside the deviation of the exact,
    and the share that is on another side of the mask's edge, beside that which is above it."""
    found: Figures = {}
    for name, exact in outputs["float32"].items():
        own = outputs["bfloat16"][name]
        found[name] = {
            "differs": ((own - exact).norm() / exact.norm()).item(),
            "cosine": torch.cosine_similarity(own.flatten(), exact.flatten(), dim=0).item(),
        }
    for name, middle in (("logits", 0.0), ("probability", 0.5)):
        if name in outputs["float32"]:
            own, exact = (outputs[dtype][name] for dtype in ("bfloat16", "float32"))
            change = (own - exact).abs()
            found[name] |= {"largest": change.max().item(), "mean": change.mean().item()}
            found[name] |= {"deviation": exact.std().item(), "above": (exact > middle).float().mean().item()}
            found[name]["another_side"] = ((own > middle) != (exact > middle)).float().mean().item()
    return found


# A training step -----------------------------------------------------------------------------------------------------


def step(size: str, clock: Clock) -> Iterator[Figures]:
    """Steps of one episode, of a micro-batch, and whole ones; with bfloat16 autocast on a CPU too."""
    started = time.perf_counter()
    settings = load_config(CONFIGS / SETTINGS[size])
    model = random_sizes.for_training(random_sizes.config_of(size), settings.mixed_precision, clock.device)
    built = time.perf_counter() - started
    micro = settings.micro_batch_size or settings.batch_size
    sizes = (1, micro, settings.batch_size) if clock.device.type == "cuda" or size == "toy" else (1,)
    for batch_size in sizes:
        found = _steps_of(model, replace(settings, batch_size=batch_size), clock)
        yield {"build_seconds": built, "weights": "as train.py casts them"} | found


def _steps_of(model: DSVLFSModel, settings: Any, clock: Clock) -> Figures:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    make = run.Accelerator
    given = {"mixed_precision": settings.mixed_precision}
    run.Accelerator = lambda **options: make(**options | given)  # training gives a CPU no bfloat16
    try:
        with tempfile.TemporaryDirectory() as scratch:
            accelerator, plan = run.start(settings, Path(scratch))
    finally:
        run.Accelerator = make
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=settings.betas, weight_decay=0.0)
    losses, optimizer = accelerator.prepare(EpisodeLosses(model).train(), optimizer)
    trainer = Trainer(settings, accelerator, losses, optimizer, plan)
    batches = [collate_photos([drawn_episode(model)] * plan.size)] * plan.accumulation
    figures = {}
    if plan.accumulation == 1:
        figures = trainer.step(0, batches)  # AdamW's moments are there from now on
    clock.rest()
    repeats = 1 if clock.device.type == "cpu" or plan.accumulation > 1 else 3
    seconds = [
        clock.seconds(lambda n=number: figures.update(trainer.step(n, batches))) for number in range(1, repeats + 1)
    ]
    median = statistics.median(seconds)
    found = {
        "episodes": settings.batch_size,
        "micro_batch": plan.size,
        "seconds": [median, min(seconds), max(seconds)],
        "episodes_a_second": settings.batch_size / median,
        "peak_gib": clock.peak(),
        "reserved_gib": clock.reserved(),
        "device_of_losses": str(accelerator.device),
        "loss": figures["loss"][0],
    }
    optimizer.zero_grad(set_to_none=True)
    accelerator.free_memory()
    return found


def drawn_episode(model: DSVLFSModel) -> PhotoEpisode:
    """Of two drawn photos, asked with a description."""
    (photo, mask), shown = photo_and_mask(0), photo_and_mask(1)
    episode = Episode(
        class_name=random_sizes.NAME,
        query=photo,
        query_mask=mask,
        query_ignore=~mask & False,
        support=[shown],
        support_ids=("1",),
        class_names=(random_sizes.NAME,),
    )
    prepared = FixedEpisodes([episode], model.processor)[0]
    return replace(prepared, description=random_sizes.description(model))


# All of it -----------------------------------------------------------------------------------------------------------


def computed(size: str) -> Figures:
    """What `dsvlfs info` says: GiB of a query with two supports and of a training step, by precision."""
    found = cost(random_sizes.config_of(size), SHOTS)
    return {
        name: {dtype: found.memory(dtype, training=training) / GIB for dtype in ("float32", "bfloat16")}
        for name, training in (("query", False), ("step", True))
    }


def matching(size: str, clock: Clock) -> Iterator[Figures]:
    """`device_matching.py`'s cases."""
    layers, channels, side = MATCHING[size]
    repeats = 3 if clock.device.type == "cuda" else 1
    yield from device_matching.cases(clock, layers=layers, channels=channels, size=side, repeats=repeats)


class Report:
    """Lines as they come, on the screen and in a file."""

    def __init__(self, folder: Path | None) -> None:
        self.file = None
        self.lines: list[Figures] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = folder / "full_size.jsonl"
            self.file.write_text("")

    def add(self, line: Figures) -> None:
        """Writes a line."""
        self.lines.append(line)
        text = json.dumps(line)
        print(text, flush=True)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(text + "\n")


def work(options: argparse.Namespace, clock: Clock, report: Report) -> None:
    """All parts, the more important first; each is its own failure."""
    started = time.perf_counter()
    outputs: dict[tuple[str, str], dict[str, Tensor]] = {}
    todo: list[tuple[Figures, Callable[[], Iterator[Figures]]]] = []
    for dtype in options.dtypes:
        for size in options.sizes:
            # What a query makes holds the probabilities too.
            if asked := [part for part in (query, precision) if part.__name__ in options.parts]:
                about = {"part": asked[0].__name__, "size": size, "dtype": dtype}
                todo.append((about, partial(asked[0], size, dtype, clock, outputs)))
            if "step" in options.parts and dtype == options.dtypes[0]:
                todo.append(({"part": "step", "size": size}, partial(step, size, clock)))
    if "matching" in options.parts:
        size = options.sizes[0]
        todo.append(({"part": "matching", "size": size}, partial(matching, size, clock)))
    for about, part in todo:
        begun = time.perf_counter()
        try:
            clock.rest()
            for figures in part():
                report.add(about | figures | {"part_seconds": time.perf_counter() - begun})
                if time.perf_counter() - started > options.budget:
                    break
        except Exception as error:  # the next part may fit, or work
            failed = {"failed": f"{type(error).__name__}: {error}"[:500], "where": traceback.format_exc()[-1500:]}
            report.add(about | failed)
        if time.perf_counter() - started > options.budget:
            report.add({"part": "budget", "stopped_after": about, "seconds": time.perf_counter() - started})
            break
    for size in options.sizes:
        own = {dtype: outputs[size, dtype] for dtype in ("float32", "bfloat16") if (size, dtype) in outputs}
        if len(own) == 2:
            report.add({"part": "bfloat16 against float32", "size": size} | differences(own))


def table(lines: list[Figures], known: dict[str, Figures]) -> str:
    """What there is of each part, short."""
    rows = []
    for line in lines:
        part, size = line["part"], line.get("size", "")
        if "failed" in line:
            rows.append(f"{part} {size} {line.get('dtype', '')}: failed, {line['failed'][:150]}")
        elif part == "query":
            expected = known.get(size, {}).get("query", {}).get(line["dtype"], float("nan"))
            times = ", ".join(f"{name} {value[0]:.3f} s" for name, value in line["seconds"].items())
            rows.append(
                f"query {size} {line['dtype']}: {times}; {line['peak_gib']:.2f} GiB (computed {expected:.2f}), "
                f"built in {line['build_seconds']:.1f} s"
            )
        elif part == "step":
            expected = known.get(size, {}).get("step", {}).get("bfloat16", float("nan"))
            rows.append(
                f"step {size}, {line['episodes']} episodes in micro-batches of {line['micro_batch']}: "
                f"{line['seconds'][0]:.3f} s, {line['episodes_a_second']:.2f} a second, {line['peak_gib']:.2f} GiB "
                f"(computed for one {expected:.2f})"
            )
        elif part == "matching":
            sides = [
                f"{side} {line[side]['seconds']:.3f} s {line[side]['extra_gib']:.2f} GiB"
                for side in ("reference", "ours")
                if line.get(side, {}).get("seconds")
            ]
            differs = [f"{k} {v:.1e}" for k, v in line.items() if "differ" in k]
            rows.append(
                f"matching {line['pass']}, {line['precision']}, {line['support']}: {'; '.join(sides + differs)}"
            )
        else:
            rows.append(json.dumps(line)[:300])
    return "\n".join(rows)


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=random_sizes.SIZES, default=["paper", "base"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no part is begun")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    options = parser.parse_args()
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    clock, report = Clock(device), Report(options.out)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    about = {"device": name, "torch": torch.__version__, "threads": torch.get_num_threads()}
    about["tf32"] = {"convolutions": torch.backends.cudnn.allow_tf32, "products": torch.backends.cuda.matmul.allow_tf32}
    report.add({"part": "machine"} | about)
    known: dict[str, Figures] = {}
    pool = ProcessPoolExecutor(len(options.sizes), mp_context=get_context("spawn"))
    waiting: dict[str, Future] = {}
    if device.type == "cuda":  # whose host has nothing else to do
        waiting = {size: pool.submit(computed, size) for size in options.sizes}
    work(options, clock, report)
    waiting = waiting or {size: pool.submit(computed, size) for size in options.sizes}
    for size, future in waiting.items():
        try:
            known[size] = future.result(timeout=120)
            report.add({"part": "computed, GiB", "size": size} | known[size])
        except Exception as error:
            report.add({"part": "computed, GiB", "size": size, "failed": repr(error)})
    pool.shutdown(wait=False, cancel_futures=True)
    print(table(report.lines, known))


if __name__ == "__main__":
    main()
