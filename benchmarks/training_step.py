"""How long a training step takes, and what share of it waits for data.

With train.py's settings, on its own data; or, with `--drawn`, on photos drawn here (640 x 480, 8 classes of 6).
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from dsvlfs.training.episode_losses import EpisodeLosses, build_model
from dsvlfs.training.run import start
from dsvlfs.training.schedule import StepPlan
from dsvlfs.training.settings import load_config
from dsvlfs.training.sources import open_episodes
from dsvlfs.training.trainer import Trainer


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="settings of train.py")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data-root", type=Path, help="folder of the training packs or the data set")
    source.add_argument("--drawn", action="store_true", help="draw a folder of photos, whatever the settings' data set")
    parser.add_argument("--cache", type=Path, help="folder of the frozen features, where the settings use one")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, help="in place of the settings' own")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    # The costly kind of step alone: with the language model.
    config = replace(config, steps=arguments.steps + 1, text_only_steps=0, validation_every=0)
    if arguments.workers is not None:
        config = replace(config, workers=arguments.workers)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.drawn:
            config = replace(config, dataset="folder", fold=None)
            arguments.data_root = _draw(Path(scratch) / "photos")
        waiting, computing, plan, device = _measure(config, arguments, Path(scratch))
    seconds = [wait + compute for wait, compute in zip(waiting, computing)]
    result = {
        "machine": f"{platform.machine()}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "episodes_a_step": config.batch_size,
        "episodes_a_micro_batch": plan.size,
        "workers": config.workers,
        "step_s_median": round(statistics.median(seconds), 3),
        "step_s_range": [round(min(seconds), 3), round(max(seconds), 3)],
        "episodes_a_second": round(config.batch_size * len(seconds) / sum(seconds), 2),
        "data_loading_share": round(sum(waiting) / sum(seconds), 3),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def _measure(config, arguments, scratch: Path) -> tuple[list[float], list[float], StepPlan, torch.device]:
    """Seconds of each step but the first: waiting for its batches, and computing."""
    accelerator, plan = start(config, scratch)
    model = build_model(config, accelerator)
    episodes = open_episodes(config, model.eval(), arguments.data_root, arguments.cache or scratch / "cache")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.learning_rate)
    losses, optimizer = accelerator.prepare(EpisodeLosses(model).train(), optimizer)
    trainer = Trainer(config, accelerator, losses, optimizer, plan)
    waiting, computing = [], []
    batches = trainer.batches(episodes, 0)
    for number in range(config.steps):
        started = time.perf_counter()
        own = next(batches)
        loaded = time.perf_counter()
        trainer.step(number, own)  # ends with its figures on the CPU, so nothing is left running
        waiting.append(loaded - started)
        computing.append(time.perf_counter() - loaded)
    return waiting[1:], computing[1:], plan, accelerator.device


def _draw(folder: Path) -> Path:
    """A folder of photos of noise with an ellipse each, as large and as hard to decode as COCO's."""
    rng = np.random.default_rng(0)
    lines = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(48):
        mask = Image.new("1", (640, 480))
        left, top = rng.integers(0, 320), rng.integers(0, 240)
        ImageDraw.Draw(mask).ellipse((left, top, left + 300, top + 220), fill=1)
        photo = Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8))
        photo.paste(tuple(rng.integers(0, 255, 3).tolist()), mask=mask)
        photo.save(folder / "images" / f"{number}.jpg", quality=90)
        mask.save(folder / "masks" / f"{number}.png")
        lines.append({"image": f"images/{number}.jpg", "mask": f"masks/{number}.png", "name": f"class {number % 8}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


if __name__ == "__main__":
    main()
