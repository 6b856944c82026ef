"""Trains DSV-LFS on cached frozen features: `accelerate launch train/train.py --config train/configs/tiny.yaml ...`.

The first `text_only_steps` train the matcher, the decoder and the projection against a language model that reads the
class alone; the rest train everything, LoRA and LLaVA's projector included, with the photo in the question. A run
writes its state as it goes; started again with `--resume`, it goes on with the same episodes.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from alignment import SemanticAlignment, TextStates
from cache_features import build_cache
from config import TrainingConfig, load_config
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from dsvlfs.bases import BaseNotAvailableError
from dsvlfs.configuration import DSVLFSConfig
from dsvlfs.data.sampling import EpisodeDataset, TrainingBatch, collate
from dsvlfs.errors import InputError
from dsvlfs.modeling import DSVLFSModel, TrainingOutput


def save_state(folder: Path, model: DSVLFSModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes what a resumed run needs, whole or not at all."""
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    torch.save(
        {"optimizer": optimizer.state_dict(), "step": step, "random": torch.get_rng_state()},
        unfinished / "training.pt",
    )
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(unfinished, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, model: DSVLFSModel, optimizer: torch.optim.Optimizer) -> int:
    """Reads what `save_state` wrote; returns the number of steps done, 0 where it wrote nothing yet.

    Raises:
        InputError: the folder's model is damaged.
    """
    if not folder.exists():  # killed between two renames, or before the first
        folder = folder.with_name(folder.name + ".old")
        if not folder.exists():
            return 0
    model.load_trained(folder / "model.safetensors")
    state = torch.load(folder / "training.pt", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return state["step"]


def intersection_over_union(output: TrainingOutput, target: Tensor) -> Tensor:
    """IoU (batch,) of the masks at probability 0.5."""
    predicted, wanted = output.logits > 0, target > 0.5
    overlap = (predicted & wanted).sum(dim=(1, 2))
    return overlap / (predicted | wanted).sum(dim=(1, 2)).clamp(min=1)


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then linear decay to nought at the last step."""
    return min((step + 1) / config.warmup_steps, (config.steps - step) / max(1, config.steps - config.warmup_steps))


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="settings (YAML)")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the training packs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--cache", type=Path, help="folder of the frozen features; default: OUT/cache")
    parser.add_argument("--start-from", type=Path, help="folder of a checkpoint whose weights are the start")
    parser.add_argument("--resume", action="store_true", help="go on where OUT stopped")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    accelerator = Accelerator(log_with="tensorboard", project_dir=arguments.out, cpu=not torch.cuda.is_available())
    if accelerator.num_processes > 1 or accelerator.mixed_precision != "no":
        raise InputError("Training runs in one process and full precision so far; launch it with --num_processes 1.")
    last = arguments.out / "last"
    _open_run(arguments.out, config, resume=arguments.resume)
    accelerator.init_trackers("curves")
    set_seed(config.seed)
    model = DSVLFSModel(getattr(DSVLFSConfig, config.size)())
    if arguments.start_from:
        model.load_trained(arguments.start_from / "model.safetensors")
    cache_folder = arguments.cache or arguments.out / "cache"
    cache = build_cache(config, model.eval(), arguments.data_root, cache_folder)
    alignment = None
    if config.text_only_steps:
        alignment = SemanticAlignment(model, cache, TextStates(model, cache_folder / "texts.safetensors"))
        print(f"Held-out names find their own photo among four in {alignment.accuracy:.0%}.")
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=0.0,
    )
    done = load_state(last, model, optimizer) if arguments.resume else 0
    scheduler = LambdaLR(optimizer, lambda step: learning_rate_factor(done + step, config))
    episodes = EpisodeDataset(
        cache,
        length=config.steps * config.batch_size,
        seed=config.seed,
        kind_weights=config.kind_weights,
        visual_only=config.visual_only,
        semantic_only=config.semantic_only,
        description_share=config.description_share,
        misnamed=config.misnamed,
    )
    remaining = Subset(episodes, range(done * config.batch_size, len(episodes)))
    # A generator of its own: the loader draws a number when it starts, which would shift a resumed run's dropout.
    loader = DataLoader(remaining, batch_size=config.batch_size, collate_fn=collate, generator=torch.Generator())
    model.to(accelerator.device).train()
    optimizer = accelerator.prepare(optimizer)
    recent: list[dict[str, float]] = []
    started = time.time()
    with (arguments.out / "losses.jsonl").open("a") as log:
        bar = tqdm(loader, initial=done, total=config.steps, unit="step", disable=not accelerator.is_main_process)
        for step, batch in enumerate(bar, done + 1):
            batch = batch.to(accelerator.device)
            output = training_step(model, batch, alignment if step <= config.text_only_steps else None)
            optimizer.zero_grad()
            accelerator.backward(output.loss)
            accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            scheduler.step()
            recent.append(_figures(output, batch))
            if step % config.log_every == 0:
                means = {k: sum(v) / len(v) for k in recent[-1] if (v := [r[k] for r in recent if r[k] == r[k]])}
                recent.clear()
                accelerator.log(means, step=step)
                log.write(json.dumps({"step": step, "seconds": round(time.time() - started, 1)} | means) + "\n")
                log.flush()
                bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()})
            if step % config.checkpoint_every == 0 or step == config.steps:
                save_state(last, model, optimizer, step)
    accelerator.end_training()
    model.save_pretrained(arguments.out / "final", dtype=torch.float16)


def _open_run(out: Path, config: TrainingConfig, *, resume: bool) -> None:
    """Writes the run's settings; or, to resume, checks them.

    Raises:
        InputError: there is a run already, or none to resume, or one with other settings.
    """
    settings, text = out / "training.json", json.dumps(asdict(config), indent=2) + "\n"
    if not resume:
        if settings.exists():
            raise InputError(f"{out} holds a run already; go on with --resume, or give another --out.")
        out.mkdir(parents=True, exist_ok=True)
        settings.write_text(text)
    elif not settings.exists():
        raise InputError(f"{out} holds no run; start one without --resume.")
    elif settings.read_text() != text:
        raise InputError(f"The run in {out} was started with other settings; resume it with its own.")


def training_step(model: DSVLFSModel, batch: TrainingBatch, alignment: SemanticAlignment | None) -> TrainingOutput:
    """The losses of a batch; with `alignment`, the class is read without the photo."""
    question = prompt = None
    if batch.names and alignment is not None:
        prompt = alignment.held_out_prompts(batch.names).to(model.device)
    elif batch.names:
        question = model.processor.question(batch.names).to(model.device)
    return model(
        batch.features,
        batch.support_layers,
        batch.support_mask,
        question,
        batch.target,
        use_semantic=batch.use_semantic,
        use_visual=batch.use_visual,
        semantic_prompt=prompt,
    )


def _figures(output: TrainingOutput, batch: TrainingBatch) -> dict[str, float]:
    iou = intersection_over_union(output, batch.target)
    modes = {
        "both": batch.use_semantic & batch.use_visual,
        "semantic": batch.use_semantic & ~batch.use_visual,
        "visual": ~batch.use_semantic & batch.use_visual,
    }
    losses = {name: getattr(output, name).item() for name in ("loss", "text_loss", "bce_loss", "dice_loss")}
    return losses | {f"iou_{mode}": iou[chosen].mean().item() for mode, chosen in modes.items()}


if __name__ == "__main__":
    try:
        main()
    except (InputError, BaseNotAvailableError) as error:
        sys.exit(f"train.py: {error}")
