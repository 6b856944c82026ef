"""Whether training learns: `base` at toy widths (`toy_base.py`) on 20 episodes of VOC, by `dsvlfs train` itself.

Ten photos show two classes each and are asked for both: without its prompts a model cannot tell the two apart, and its
mean IoU stays below a half. What is measured is the run's last checkpoint, in evaluation mode. Each prompt is tried
alone and both together, in float32 and in bfloat16 autocast, in one process and in two (gloo), where the model is
copied (DDP) or divided (FSDP2); `moved` is how far each part went from its start, by its length.

A cell of the table is a line of JSON, written when it is done; one that fails says so, and the others go on.

    python benchmarks/overfit.py --data-root VOC2012 --out cells.jsonl
    python benchmarks/overfit.py --data-root VOC2012 --prepare episodes.safetensors      # for a machine without VOC
    python benchmarks/overfit.py --episodes episodes.safetensors --parallel 16 --out cells.jsonl
    python benchmarks/overfit.py --episodes episodes.safetensors --device cuda --layouts "one process" --parallel 6
"""

import argparse
import itertools
import json
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, fields, replace
from pathlib import Path

import missing  # noqa: F401  (before what may miss a package)

# isort: split
import numpy as np
import torch
import toy_base
import yaml
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import Dataset

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.data.episodes import Episode
from dsvlfs.data.named_sets import load_index
from dsvlfs.inference.encoded import View
from dsvlfs.processing import DSVLFSProcessor
from dsvlfs.training import run, sources
from dsvlfs.training.episode_losses import EpisodeLosses
from dsvlfs.training.photo_episodes import FixedEpisodes, PhotoEpisode, collate_photos

PHOTOS = 10
SMALLEST = 0.06  # share of the photo that either class covers
PROMPTS = ("semantic", "visual", "both")
PRECISIONS = {"float32": "no", "bfloat16": "bf16"}
LAYOUTS = {"one process": 1, "two, DDP": 2, "two, FSDP2": 2}
PARTS = {
    "LoRA": "lora_",
    "added token": "trainable_tokens",
    "projector": "multi_modal_projector",
    "projection": "semantic_encoder.to_prompt",
    "matcher": "matcher",
    "decoder": "mask_decoder.decoder",
}
SETTINGS = {
    "size": "base",
    "dataset": "pascal-5i",
    "batch_size": 2 * PHOTOS,
    "warmup_steps": 20,
    "misnamed": 0,
    "description_share": 0,
    "gradient_checkpointing": True,
    "validation_every": 0,
    "model": {"train_vlm_projector": True, "lora_dropout": 0.0},
}
Cell = tuple[str, str, str]  # of PROMPTS, PRECISIONS and LAYOUTS


def rows_of(root: Path) -> Iterator[tuple[int, int]]:
    """Rows of VOC's training index: of a query, and of its support, another photo of the class."""
    index = load_index("pascal-5i", root, "train")
    photos, classes, areas = (np.array(index[name][:]) for name in ("photo_id", "class_index", "area"))
    large = areas >= SMALLEST * 500 * 375
    chosen = [p for p in np.unique(photos) if large[photos == p].sum() == (photos == p).sum() == 2][:PHOTOS]
    rng = np.random.default_rng(0)
    for photo, query in ((p, q) for p in chosen for q in np.flatnonzero(photos == p)):
        others = np.flatnonzero(large & (classes == classes[query]) & (photos != photo))
        yield int(query), int(rng.choice(others))


def episodes_of(root: Path) -> list[Episode]:
    """The episodes, read from the photos."""
    index = load_index("pascal-5i", root, "train")
    found = []
    for query, support in rows_of(root):
        row, shown = index[query], index[support]
        found.append(
            Episode(
                class_name=row["class_name"],
                query=row["image"],
                query_mask=np.asarray(row["mask"]) > 0,
                query_ignore=np.asarray(row["ignore"]) > 0,
                support=[(shown["image"], np.asarray(shown["mask"]) > 0)],
                support_ids=(shown["photo_id"],),
                class_names=(row["class_name"],),
            )
        )
    return found


def prepare(root: Path, file: Path) -> None:
    """Writes the episodes as the model sees them: a file of some megabytes that needs neither VOC nor its reader."""
    episodes = episodes_of(root)
    with tempfile.TemporaryDirectory() as scratch:
        config = toy_base.save(Path(scratch), sorted({episode.class_name for episode in episodes}))
        prepared = FixedEpisodes(episodes, DSVLFSProcessor.from_config(config))
        write([prepared[number] for number in range(len(prepared))], file)


def write(episodes: Sequence[PhotoEpisode], file: Path) -> None:
    """What `read` reads."""
    tensors, texts = {}, []
    for number, episode in enumerate(episodes):
        plain = {field.name: getattr(episode, field.name) for field in fields(episode)}
        flat = {f"{n}.{k}": v for n in ("query", "support") for k, v in asdict(plain.pop(n)).items()} | plain
        tensors |= {f"{number}.{k}": v.contiguous() for k, v in flat.items() if isinstance(v, torch.Tensor)}
        texts.append({k: v for k, v in flat.items() if not isinstance(v, torch.Tensor)})
    save_file(tensors, file, metadata={"episodes": json.dumps(texts)})


def read(file: Path) -> list[PhotoEpisode]:
    """The episodes that `prepare` wrote."""
    with safe_open(file, "pt") as opened:
        texts = json.loads(opened.metadata()["episodes"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    episodes = []
    for number, own in enumerate(texts):
        prefix = f"{number}."
        own = own | {n.removeprefix(prefix): tensor for n, tensor in tensors.items() if n.startswith(prefix)}
        views = {}
        for name in ("query", "support"):
            part = {key.removeprefix(f"{name}."): own.pop(key) for key in list(own) if key.startswith(f"{name}.")}
            views[name] = View(**part | {"valid": tuple(part["valid"]), "size": tuple(part["size"])})
        episodes.append(PhotoEpisode(**own, **views))
    return episodes


class InTurns(Dataset):
    """The same episodes again and again, each time in another order."""

    def __init__(self, episodes: Sequence[PhotoEpisode], length: int) -> None:
        self.episodes, self.length = episodes, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> PhotoEpisode:
        number, place = divmod(index, len(self.episodes))
        return self.episodes[np.random.default_rng(number).permutation(len(self.episodes))[place]]


def asked(file: Path, prompts: str) -> list[PhotoEpisode]:
    """The episodes with these prompts."""
    use = {"use_semantic": prompts != "visual", "use_visual": prompts != "semantic"}
    return [replace(episode, **use) for episode in read(file)]


def work(folder: Path, file: Path, threads: int, prompts: str, precision: str, layout: str) -> None:
    """One process's part of a run."""
    torch.set_num_threads(threads)
    _patch_launch(precision, layout)
    toy = DSVLFSConfig.from_pretrained(folder.parent)
    DSVLFSConfig.base = classmethod(lambda _: toy)

    def open_episodes(config, model, *_):
        return sources.Episodes(InTurns(asked(file, prompts), config.steps * config.batch_size), collate_photos, None)

    run.open_episodes = open_episodes
    run.train(folder / "settings.yaml", folder, folder / "run")


def _patch_launch(precision: str, layout: str) -> None:
    """What a launcher asks for on GPUs, on a CPU: training itself gives it neither bfloat16 nor FSDP."""
    started = run.start
    mixed = PRECISIONS[precision]
    make = run.Accelerator
    run.Accelerator = lambda **given: make(**given | {"mixed_precision": mixed})

    def start(config, out):
        accelerator, plan = started(config, out)
        if layout == "two, FSDP2":
            accelerator.state.distributed_type = DistributedType.FSDP
            accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
                fsdp_version=2,
                auto_wrap_policy="transformer_based_wrap",
                transformer_cls_names_to_wrap=["Qwen2DecoderLayer", "SamVisionLayer", "SiglipEncoderLayer"],
                reshard_after_forward=True,
            )
            if mixed != "no":
                accelerator.state.fsdp_plugin.set_mixed_precision(mixed)
        return accelerator, plan

    run.start = start


@torch.no_grad()
def measure(folder: Path, file: Path, prompts: str) -> dict[str, object]:
    """IoU of each episode by the last checkpoint, and how far its parts moved."""
    torch.manual_seed(0)
    toy = DSVLFSConfig.from_pretrained(folder.parent)
    toy.update(SETTINGS["model"])
    before = DSVLFSModel(toy).trained_state_dict()
    model = DSVLFSModel.from_pretrained(folder / "run" / "final")
    batch = collate_photos(asked(file, prompts))
    logits = EpisodeLosses(model).eval()(batch)["logits"]
    counted = batch.counted >= 0.5
    predicted, wanted = (logits > 0) & counted, (batch.target > 0.5) & counted
    ious = (predicted & wanted).sum(dim=(1, 2)) / (predicted | wanted).sum(dim=(1, 2)).clamp(min=1)
    moved = {}
    for part, key in PARTS.items():
        pairs = [(own, before[name]) for name, own in model.trained_state_dict().items() if key in name]
        change = sum((own - old).square().sum() for own, old in pairs) ** 0.5
        moved[part] = round(float(change / sum(old.square().sum() for _, old in pairs) ** 0.5), 3)
    return {"iou": round(ious.mean().item(), 3), "least": round(ious.min().item(), 3), "moved": moved}


def try_one(folder: Path, file: Path, options: argparse.Namespace, cell: Cell) -> None:
    """A run in processes of its own, and what it learned: a line in a file of the folder."""
    prompts, precision, layout = cell
    alone = {name: float(prompts == name) for name in ("semantic", "visual")}
    settings = SETTINGS | {
        "steps": options.steps,
        "learning_rate": options.learning_rate,
        "checkpoint_every": options.steps,
        "log_every": max(1, options.steps // 10),
        "mixed_precision": PRECISIONS[precision],
        "semantic_only": alone["semantic"],
        "visual_only": alone["visual"],
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    _launch(LAYOUTS[layout], work, folder, file, options.threads, *cell)
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (folder / "run" / "losses.jsonl").read_text().splitlines()]
    curve = {line["step"]: round(line[f"iou_{prompts}"], 3) for line in lines}
    found = measure(folder, file, prompts) | {"curve": curve, "steps": options.steps, "seconds": round(seconds)}
    (folder / "found.json").write_text(json.dumps(found))


def tried(scratch: Path, file: Path, options: argparse.Namespace, cell: Cell) -> dict[str, object]:
    """`try_one` in a process of its own, and its line; of a run that failed, that it did."""
    about = dict(zip(("prompts", "precision", "layout"), cell)) | {"device": options.device}
    folder = scratch / "-".join(cell).replace(" ", "_")
    folder.mkdir()
    process = _context().Process(target=try_one, args=(folder, file, options, cell))
    process.start()
    process.join()
    if process.exitcode:
        return about | {"failed": process.exitcode}
    return about | json.loads((folder / "found.json").read_text())


def _context() -> multiprocessing.context.BaseContext:
    """On a CPU, new processes from one that has imported everything; a GPU must not have been met before a fork."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["missing", "dsvlfs.training.run"])
    return context


def _launch(count: int, target: Callable[..., None], *arguments: object) -> None:
    """Runs a function in so many processes, which find each other as `torchrun`'s do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)} if count > 1 else {}
    environments = [shared | ({"RANK": str(n), "LOCAL_RANK": str(n)} if count > 1 else {}) for n in range(count)]
    running = [_context().Process(target=_with, args=(own, target, *arguments)) for own in environments]
    for process in running:
        process.start()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise SystemExit("A run failed.")


def _with(environment: dict[str, str], target: Callable[..., None], *arguments: object) -> None:
    os.environ.update(environment)
    target(*arguments)


def table(results: list[dict]) -> str:
    """Markdown: a row for each precision and layout, a column for each way of prompting."""
    lines = [f"| | {' | '.join(PROMPTS)} |", f"| --- |{' --- |' * len(PROMPTS)}"]
    for precision, layout in itertools.product(PRECISIONS, LAYOUTS):
        found = {r["prompts"]: r for r in results if (r["precision"], r["layout"]) == (precision, layout)}
        if found:
            cells = [f"{found[p]['iou']:.2f} ({found[p]['least']:.2f})" if p in found else "" for p in PROMPTS]
            lines.append(f"| {precision}, {layout} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data-root", type=Path, help="folder of VOC2012")
    source.add_argument("--episodes", type=Path, help="file of --prepare")
    parser.add_argument("--prepare", type=Path, metavar="FILE", help="only write the episodes")
    parser.add_argument("--prompts", nargs="+", choices=PROMPTS, default=PROMPTS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--parallel", type=int, default=1, help="cells at a time")
    parser.add_argument("--out", type=Path, help="file for the lines (JSON), which go to its end")
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # training takes a GPU where there is one
    elif set(options.layouts) != {"one process"}:
        parser.error("one GPU has one process; add --layouts 'one process'")
    elif not torch.cuda.is_available():
        parser.error("there is no GPU")
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        file = options.prepare or options.episodes or scratch / "episodes.safetensors"
        if options.data_root is not None:
            prepare(options.data_root, file)
        if options.prepare is not None:
            return
        toy_base.save(scratch, sorted({episode.class_name for episode in read(file)})).save_pretrained(scratch)
        cells = list(itertools.product(options.prompts, options.precisions, options.layouts))
        cells.sort(key=lambda cell: -LAYOUTS[cell[2]])  # the longer first
        with ThreadPoolExecutor(options.parallel) as pool:
            running = [pool.submit(tried, scratch, file.absolute(), options, cell) for cell in cells]
            for future in as_completed(running):
                results.append(future.result())
                print(json.dumps(results[-1]), flush=True)
                if options.out is not None:
                    with options.out.open("a") as lines:
                        lines.write(json.dumps(results[-1]) + "\n")
    print(table([result for result in results if "failed" not in result]))


if __name__ == "__main__":
    main()
