"""What each part costs: time, memory and operations of the tiny model's parts, of its queries as shots and classes
grow, and of CLIPSeg-rd64 and SegGPT-ViT-L (random weights: cost only) on the same photo, in turns; then the paper's
size, whose operations and memory are computed without its weights."""

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, SegGptConfig, SegGptForImageSegmentation
from transformers.utils import logging

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.info import PeakMemory, cost, report

EXAMPLES = Path(__file__).parent.parent / "examples"


def measure(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each task, all in turns, after one run that counts operations and the tensors alive at once."""
    result: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        with torch.no_grad(), PeakMemory() as memory, FlopCounterMode(display=False) as counter:
            task()
        result[name] = {"gflop": counter.get_total_flops() / 1e9, "memory_mib": memory.peak / 2**20}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            with torch.inference_mode():
                task()
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        result[name] |= {"seconds": statistics.median(values), "slowest": max(values), "fastest": min(values)}
    return result


def parts(model: DSVLFSModel, example: dict) -> dict[str, Callable[[], Any]]:
    """Each part of a query, on what the parts before it made."""
    processor = model.processor
    support = model.encode_support([(EXAMPLES / example["support_image"], EXAMPLES / example["support_mask"])])
    view = processor.query_view(EXAMPLES / example["query_image"])
    question = processor.question([(example["class_name"], None)])
    with torch.no_grad():
        features = model.frozen_features(view)
        embedding = model.image_embedding(features)
        semantic, _ = model.semantic_encoder(features["tokens"], question)
        visual = model.visual_prompt(features, support.layers, support.masks, embedding.shape[-1])
        logits = model.mask_decoder(embedding, semantic, visual)
    return {
        "reading the photo": lambda: processor.query_view(EXAMPLES / example["query_image"]),
        "image encoder": lambda: model.image_encoder(view.image_pixels),
        "vision tower": lambda: model.semantic_encoder.encode_photo(view.vlm_pixels),
        "language model": lambda: model.semantic_encoder(features["tokens"], question),
        "image embedding": lambda: model.image_embedding(features),
        "dense matching": lambda: model.visual_prompt(features, support.layers, support.masks, embedding.shape[-1]),
        "mask decoder": lambda: model.mask_decoder(embedding, semantic, visual),
        "mask of the photo's size": lambda: processor.prediction(logits, view.valid, view.size).segmentation(),
    }


def queries(model: DSVLFSModel, example: dict) -> dict[str, Callable[[], Any]]:
    """Whole queries, the support encoded and the class known: one, with more shots, more photos, more classes."""
    shot = (EXAMPLES / example["support_image"], EXAMPLES / example["support_mask"])
    one, five = model.encode_support([shot]), model.encode_support([shot] * 5)
    photo, name = EXAMPLES / example["query_image"], example["class_name"]
    query, number = model.encode_query(photo), itertools.count()

    def ask(photos: Any, support: Any, names: list[str]) -> None:
        for name in names:
            model.segment(photos, name, support=support)

    return {
        "tiny, 1 query": lambda: ask(photo, one, [name]),
        "tiny, 1 query, 5 shots": lambda: ask(photo, five, [name]),
        "tiny, 1 query, 3 classes": lambda: ask(photo, one, [name, "dog", "chair"]),
        "tiny, 1 query encoded before": lambda: ask(query, one, [name]),
        "tiny, 10 queries": lambda: ask([photo] * 10, one, [name]),
        "tiny, 10 queries in a batch": lambda: model.segment([photo] * 10, name, support=one, batch_size=10),
        "tiny, 1 query of a new class": lambda: ask(photo, one, [f"thing {next(number)}"]),
        "tiny, encoding 1 support": lambda: model.encode_support([shot]),
    }


def peers() -> dict[str, Callable[[], Any]]:
    """CLIPSeg asked by name (352 px, as published) and SegGPT by one example (448 px)."""
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


def main() -> None:
    """Prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    model = DSVLFSModel.from_pretrained(arguments.model)
    example = json.loads((EXAMPLES / "examples.json").read_text())[0]
    found = measure({**parts(model, example), **queries(model, example), **peers()}, arguments.rounds)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(machine, f"{'':<26}{'seconds':>9}{'from':>8}{'to':>8}{'MiB':>8}{'GFLOP':>9}", sep="\n")
    for name, row in found.items():
        print(
            f"{name:<26}{row['seconds']:>9.3f}{row['fastest']:>8.3f}{row['slowest']:>8.3f}"
            f"{row['memory_mib']:>8.0f}{row['gflop']:>9.1f}"
        )
    print("\npaper, computed", report(cost(DSVLFSConfig.paper())), sep="\n")
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine, "measured": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
