"""Everything about cost: time, memory and operations of each of the tiny model's parts, of its queries as shots,
classes, queries and the photo's size grow, and of CLIPSeg-rd64 and SegGPT-ViT-L (random weights: cost only) on the same
device, all in turns; the paper's size, part by part, computed without its weights; the dense matching against the
reference's arithmetic (`dense_matching.py`); and, on a GPU, a training step of the paper's size with random weights.

Memory is of the tensors alive at once beside the weights. The tables are Markdown.
"""

import argparse
import copy
import gc
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, SegGptConfig, SegGptForImageSegmentation
from transformers.utils import logging

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.data.targets import target_side
from dsvlfs.inference.encoded import View
from dsvlfs.measuring.costs import BYTES, TEXT_TOKENS, Cost, PeakMemory, cost
from dsvlfs.page.examples import EXAMPLES
from dsvlfs.parts.semantic_encoder import Question
from dsvlfs.processing import DSVLFSProcessor
from dsvlfs.training.episode_losses import set_precision

SHOTS, CLASSES, QUERIES = (1, 2, 5, 10), (1, 3, 10), 10
SIZES = (224, 336, 448, 560)
"""Sides of the square that the image encoder sees, multiples of its patches' 14 pixels; the vision tower sees the next
multiple of its stride of 32 below."""

Tasks = dict[str, Callable[[], Any]]
Figures = dict[str, float]


# Measuring -----------------------------------------------------------------------------------------------------------


def timed(task: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a task, from an idle device to an idle device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def counted(task: Callable[[], Any]) -> Figures:
    """Operations of a task, and the tensors alive at once."""
    with torch.no_grad(), PeakMemory() as memory, FlopCounterMode(display=False) as counter:
        task()
    return {"gflop": counter.get_total_flops() / 1e9, "memory_mib": memory.peak / 2**20}


def measure(groups: dict[str, Tasks], rounds: int, device: torch.device) -> dict[str, dict[str, Figures]]:
    """The figures of each group's tasks; the rounds go through all of them in turns, after one run that counts."""
    result = {title: {name: counted(task) for name, task in tasks.items()} for title, tasks in groups.items()}
    every = [(title, name, task) for title, tasks in groups.items() for name, task in tasks.items()]
    seconds: dict[tuple[str, str], list[float]] = {(title, name): [] for title, name, _ in every}
    for _ in range(rounds):
        for title, name, task in every:
            with torch.inference_mode():
                seconds[title, name].append(timed(task, device))
    for (title, name), values in seconds.items():
        result[title][name] |= {"seconds": statistics.median(values), "fastest": min(values), "slowest": max(values)}
    return result


# The tiny model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One of the packaged photos, and what is asked of it."""

    shot: tuple[Path, Path]
    photo: Path
    name: str

    @classmethod
    def first(cls) -> "Example":
        """The page's first."""
        return cls(EXAMPLES[0].shot, EXAMPLES[0].query_file, EXAMPLES[0].class_name)


def groups(model: DSVLFSModel, example: Example, device: torch.device) -> dict[str, Tasks]:
    """All that is measured in turns, by the title of its table."""
    return {
        "Parts": parts(model, example),
        "Shots": shots(model, example),
        "Classes": classes(model, example),
        "Queries": queries(model, example),
        "Sizes": sizes(model, example),
        "Peers": peers(device),
    }


def parts(model: DSVLFSModel, example: Example) -> Tasks:
    """Each part of a query, on what the parts before it made."""
    processor, encoder = model.processor, model.semantic_encoder
    support = model.encode_support([example.shot])
    view = processor.query_view(example.photo)
    image_pixels, vlm_pixels = view.image_pixels.to(model.device), view.vlm_pixels.to(model.device)
    question = processor.question([(example.name, None)]).to(model.device)
    with torch.no_grad():
        features = model.frozen_features(view)
        embedding = model.image_embedding(features)
        size = embedding.shape[-1]
        semantic, _ = encoder(features["tokens"], question)
        dense = model.ground(features, semantic, size) + model.compare(features, support, size).prompts
        logits = model.mask_decoder(embedding, semantic, dense)
    return {
        "reading the photo": lambda: processor.query_view(example.photo),
        "image encoder": lambda: model.image_encoder(image_pixels),
        "vision tower": lambda: encoder.encode_photo(vlm_pixels),
        "language model": lambda: encoder(features["tokens"], question),
        "image embedding": lambda: model.image_embedding(features),
        "grounding": lambda: model.ground(features, semantic, size),
        "dense matching": lambda: model.compare(features, support, size),
        "mask decoder": lambda: model.mask_decoder(embedding, semantic, dense),
        "mask of the photo's size": lambda: processor.prediction(logits, view.valid, view.size).segmentation(),
    }


def shots(model: DSVLFSModel, example: Example) -> Tasks:
    """A query with more and more shots, which are encoded before."""
    supports = {number: model.encode_support([example.shot] * number) for number in SHOTS}
    return {
        f"1 query, {_several(number, 'shot', 'shots')}": lambda s=support: model.segment(
            example.photo, example.name, support=s
        )
        for number, support in supports.items()
    }


def classes(model: DSVLFSModel, example: Example) -> Tasks:
    """A query asked about more and more classes, one shot and a known name each; the photo is encoded once."""
    support = model.encode_support([example.shot])
    names = [f"class {number}" for number in range(max(CLASSES))]

    def ask(names: Iterable[str]) -> None:
        query = model.encode_query(example.photo)
        for name in names:
            model.segment(query, name, support=support)

    ask(names)  # known from here on
    return {f"1 query, {_several(n, 'class', 'classes')}": lambda n=n: ask(names[:n]) for n in CLASSES}


def queries(model: DSVLFSModel, example: Example) -> Tasks:
    """Queries with one shot, its support encoded and its class known unless it says so."""
    support, encoded = model.encode_support([example.shot]), model.encode_query(example.photo)
    photos, number = [example.photo] * QUERIES, itertools.count()

    def ask(photos: Any, name: str = example.name, **options: Any) -> None:
        model.segment(photos, name, support=support, **options)

    ask(encoded)  # known from here on
    return {
        "1 query": lambda: ask(example.photo),
        f"{QUERIES} queries singly": lambda: ask(photos),
        f"{QUERIES} queries in a batch": lambda: ask(photos, batch_size=QUERIES),
        "1 query encoded before": lambda: ask(encoded),
        "1 query of a new class": lambda: ask(example.photo, f"thing {next(number)}"),
        "encoding 1 support": lambda: model.encode_support([example.shot]),
    }


def sizes(model: DSVLFSModel, example: Example) -> Tasks:
    """A query that the encoders see larger and larger; no weight depends on that."""
    support, own = model.encode_support([example.shot]), model.processor

    def ask(processor: DSVLFSProcessor) -> None:
        model.processor = processor
        try:
            model.segment(example.photo, example.name, support=support)
        finally:
            model.processor = own

    tasks: Tasks = {}
    for size in SIZES:
        config = copy.deepcopy(model.config)
        config.update({"image_size": size, "vlm_image_size": size // 32 * 32})
        tasks[f"1 query, {size} px"] = partial(ask, DSVLFSProcessor(config, own.tokenizer))
    return tasks


def peers(device: torch.device) -> Tasks:
    """CLIPSeg asked by name (352 px, as published) and SegGPT by one example (448 px)."""
    with device:
        clipseg = CLIPSegForImageSegmentation(
            CLIPSegConfig(vision_config={"patch_size": 16, "image_size": 352}, reduce_dim=64)
        ).eval()
        seggpt = SegGptForImageSegmentation(SegGptConfig()).eval()
        photo, large = torch.randn(1, 3, 352, 352), torch.randn(1, 3, 448, 448)
        words = torch.tensor([[49406, 1000, 49407]])
    return {
        "CLIPSeg-rd64": lambda: clipseg(input_ids=words, pixel_values=photo),
        "SegGPT-ViT-L": lambda: seggpt(pixel_values=large, prompt_pixel_values=large, prompt_masks=large),
    }


def ratios(found: dict[str, dict[str, Figures]]) -> dict[str, Figures]:
    """What the peers' and the batch's figures are worth beside a query's own."""
    queries, peers = found["Queries"], found["Peers"]
    one, singly, batch = (
        queries[name] for name in ("1 query", f"{QUERIES} queries singly", f"{QUERIES} queries in a batch")
    )
    pairs = {
        "tiny, 1 query / CLIPSeg-rd64": (one, peers["CLIPSeg-rd64"]),
        "SegGPT-ViT-L / tiny, 1 query": (peers["SegGPT-ViT-L"], one),
        f"{QUERIES} queries in a batch / singly": (batch, singly),
    }
    return {
        name: {figure: over[figure] / under[figure] for figure in ("seconds", "memory_mib", "gflop")}
        for name, (over, under) in pairs.items()
    }


# The paper's size ----------------------------------------------------------------------------------------------------


def matching(side: int, repeats: int) -> list[dict[str, Any]]:
    """`dense_matching.py`'s cases at a side of the grids, in a process of its own: the high-water mark of memory, which
    it reads, starts in a child at that of the process that starts it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "matching.json")
        options = {"--size": side, "--repeats": repeats, "--threads": torch.get_num_threads(), "--out": file}
        command = [sys.executable, Path(__file__).with_name("dense_matching.py"), *itertools.chain(*options.items())]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())


def random_model(config: DSVLFSConfig, device: torch.device) -> DSVLFSModel:
    """As `train.py` trains it in bf16, the language model's activations computed again; with random weights."""
    with device:
        model = DSVLFSModel(config, load_bases=False)
    set_precision(model, "bf16")
    model.semantic_encoder.llava.model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def training_step(model: DSVLFSModel) -> Callable[[], None]:
    """A step with a batch of one: both photos encoded, forward, backward and AdamW."""
    config, device, question = model.config, model.device, any_question(model)
    size, vlm_size, side = config.image_size, config.vlm_image_size, target_side(config)
    with device:
        view = View(torch.randn(1, 3, size, size), torch.randn(1, 3, vlm_size, vlm_size), (size, size), (size, size))
        mask, target = torch.ones(1, size, size), torch.ones(1, side, side)
        asked = torch.ones(1, dtype=torch.bool)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            query, support = (model.frozen_features(view) for _ in range(2))
            layers, grid = model.support_features(support, mask)
            output = model(query, layers, grid, question, target, use_semantic=asked, use_visual=asked)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def any_question(model: DSVLFSModel) -> Question:
    """The photo and `TEXT_TOKENS` of text, of which the last four are the answer, without a tokenizer."""
    config = model.semantic_encoder.llava.config
    ids = torch.tensor([[config.image_token_id] * config.image_seq_length + [0] * TEXT_TOKENS])
    labels = torch.full_like(ids, -100)
    labels[:, -4:] = 0
    return Question(ids, torch.ones_like(ids), labels, torch.tensor([ids.shape[1] - 2])).to(model.device)


def train(config: DSVLFSConfig, rounds: int, device: torch.device) -> Figures:
    """Seconds and peak memory of `training_step`, weights included; nothing where it does not fit."""
    try:
        step = training_step(random_model(config, device))
        step()  # makes AdamW's moments
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = [timed(step, device) for _ in range(rounds)]
    except torch.OutOfMemoryError:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "peak_gib": peak / 2**30,
    }


# Tables --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A title, the columns' heads, and rows of as many texts."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def __str__(self) -> str:
        """As Markdown that lines up in a terminal too."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows)]
        rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [
            " | ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:]))])
            for row in (self.head, rules, *self.rows)
        ]
        return "\n".join([f"### {self.title}", "", *(f"| {line} |" for line in lines)])


def measured_table(title: str, found: dict[str, Figures]) -> Table:
    """Of a group; where something grows, also how many times the first row's time each takes."""
    grows = title in ("Shots", "Classes", "Sizes")
    first = next(iter(found.values()))["seconds"]
    head = (title.lower(), "seconds", "fastest", "slowest", *["x first"] * grows, "MiB", "GFLOP")
    rows = [
        (
            name,
            *(f"{row[figure]:.3f}" for figure in ("seconds", "fastest", "slowest")),
            *[f"{row['seconds'] / first:.2f}"] * grows,
            f"{row['memory_mib']:.0f}",
            f"{row['gflop']:.1f}",
        )
        for name, row in found.items()
    ]
    return Table(title, head, rows)


def ratio_table(found: dict[str, Figures]) -> Table:
    """Of `ratios`."""
    rows = [(name, *(f"{value:.2f}" for value in row.values())) for name, row in found.items()]
    return Table("Ratios", ("ratio", "seconds", "MiB", "GFLOP"), rows)


def part_table(found: Cost) -> Table:
    """Of the parts of a size: computed, not measured."""
    rows = [(p.name, p.parameters, p.trained, p.flops, p.activations) for p in found.parts]
    rows.append(("all", *(sum(column) for column in list(zip(*rows))[1:4]), found.inference_activations["float32"]))
    head = ("part", "parameters", "trained", "GFLOP a query", "weights in bf16, GiB", "activations in float32, MiB")
    texts = [
        (name, f"{n:,}", f"{trained:,}", f"{flops / 1e9:,.1f}", f"{n * 2 / 2**30:.2f}", f"{peak / 2**20:,.0f}")
        for name, n, trained, flops, peak in rows
    ]
    return Table("Paper: parts, computed", head, texts)


def precision_table(found: Cost) -> Table:
    """Of the memory of a size, weights included: computed, not measured."""
    rows = [
        (precision, *(f"{found.memory(precision, training=training) / 2**30:.2f}" for training in (False, True)))
        for precision in BYTES
    ]
    return Table("Paper: memory, computed", ("frozen weights", "a query, GiB", "a training step, GiB"), rows)


def matching_table(cases: list[dict[str, Any]]) -> Table:
    """Of `matching`."""
    head = ("pass", "side", "object", "reference, s", "ours, s", "faster", "reference, GiB", "ours, GiB", "memory")
    rows = [
        (
            "backward" if case["backward"] else "forward",
            str(case["size"]),
            f"{case['foreground']:.0%}",
            *(f"{case[side]['seconds']:.2f}" for side in ("reference", "ours")),
            f"{case['faster']:.1f} x",
            *(f"{case[side]['extra_gib']:.2f}" for side in ("reference", "ours")),
            f"{case['memory_share']:.0%}",
        )
        for case in cases
    ]
    return Table("Paper: dense matching against the reference's arithmetic", head, rows)


def training_table(found: Figures) -> Table:
    """Of `train`."""
    row = tuple(f"{value:.2f}" for value in found.values()) or ("does not fit", *["-"] * 3)
    head = ("step", "seconds", "fastest", "slowest", "peak, GiB")
    return Table("Paper: a training step", head, [("batch of 1", *row)])


# The command ---------------------------------------------------------------------------------------------------------


def _several(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _machine(device: torch.device) -> str:
    where = [platform.machine(), f"{torch.get_num_threads()} threads"]
    if device.type == "cuda":
        where.append(torch.cuda.get_device_name(device))
    return ", ".join([*where, f"torch {torch.__version__}"])


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Table]]:
    """All figures, and the tables of them."""
    device = torch.device(arguments.device)
    result: dict[str, Any] = {"machine": _machine(device)}
    tables: list[Table] = []
    if device.type == "cuda":  # first, while nothing else is on it
        result["training"] = train(DSVLFSConfig.paper(), arguments.rounds, device)
        gc.collect()
        torch.cuda.empty_cache()
        tables.append(training_table(result["training"]))
    model = DSVLFSModel.from_pretrained(arguments.model).to(device)
    found = measure(groups(model, Example.first(), device), arguments.rounds, device)
    result |= {"measured": found, "ratios": ratios(found)}
    paper = cost(DSVLFSConfig.paper())
    measured = [measured_table(title, rows) for title, rows in found.items()]
    tables = [*measured, ratio_table(result["ratios"]), part_table(paper), precision_table(paper), *tables]
    if arguments.matching:
        result["matching"] = matching(arguments.matching, min(2, arguments.rounds))
        tables.append(matching_table(result["matching"]))
    return result, tables


def main() -> None:
    """Prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument(
        "--matching",
        type=int,
        default=64,
        metavar="SIDE",
        help="of the grids that dense_matching.py matches on the CPU, some minutes; 0 leaves it out (default: 64)",
    )
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    result, tables = run(arguments)
    text = "\n\n".join([result["machine"], *map(str, tables)])
    print(text)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
