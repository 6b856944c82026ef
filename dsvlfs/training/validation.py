"""Measures the model as it is trained: mIoU on the validation episodes, and a picture of the first few."""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ..data.loading import load_ahead
from ..inference.pictures import overlay
from ..measuring.metrics import EpisodeCounts, SegmentationMetrics, count_episode
from ..processing import DSVLFSProcessor
from .photo_episodes import PhotoBatch
from .sampling import TrainingBatch

_TILE = 256  # pixels of a picture's tile


@torch.no_grad()
def validate(
    losses: nn.Module,
    episodes: Dataset,
    accelerator: Accelerator,
    *,
    collate: Callable[[list], PhotoBatch | TrainingBatch],
    batch_size: int,
    workers: int,
    pictures: int,
) -> tuple[float, np.ndarray | None]:
    """Segments the validation episodes with both prompts and one support, divided between the processes.

    Args:
        losses: `EpisodeLosses`, as Accelerate prepared it; left in training mode.
        episodes: of photos, or of a feature cache; names are those that the alignment holds out there.
        collate: stacks them.
        batch_size: of a process.
        workers: that load photos.
        pictures: number of episodes to draw.

    Returns:
        mIoU in percent, over classes, at the decoder's resolution and without what is ignored; and in the main process
        a picture (height, width, 3), uint8, a row an episode: support, query with its mask, query with the prediction.
    """
    losses.eval()
    processor = accelerator.unwrap_model(losses).model.processor
    numbers = np.arange(len(episodes))
    every = batch_size * accelerator.num_processes
    # Every process computes as many batches, so that none waits for another: some episodes come twice, and count once.
    padded = np.resize(numbers, -(-len(numbers) // every) * every)
    own = padded.reshape(-1, accelerator.num_processes, batch_size)[:, accelerator.process_index].ravel()
    counted_once = (np.arange(len(padded)) < len(numbers)).reshape(-1, accelerator.num_processes, batch_size)
    loader = load_ahead(Subset(episodes, own.tolist()), workers=workers, collate=collate, batch_size=batch_size)
    counts: list[EpisodeCounts] = []
    rows: list[tuple[int, np.ndarray]] = []
    for batch, counts_here, numbers_here in zip(
        loader, counted_once[:, accelerator.process_index], own.reshape(-1, batch_size)
    ):
        cached = isinstance(batch, TrainingBatch)
        logits = losses(batch.to(accelerator.device), text_only=cached)["logits"].float().cpu()
        for i in np.flatnonzero(counts_here):
            counts.append(_count(batch.class_names[i], logits[i], batch.target[i], batch.counted[i]))
            if numbers_here[i] < pictures and not cached:
                rows.append((int(numbers_here[i]), _picture(batch, i, torch.sigmoid(logits[i]), processor)))
    losses.train()
    counts, rows = gather_object(counts), gather_object(rows)
    picture = np.concatenate([row for _, row in sorted(rows, key=lambda entry: entry[0])]) if rows else None
    return 100 * SegmentationMetrics(counts).miou(), picture


def _count(class_name: str, logits: Tensor, target: Tensor, counted: Tensor) -> EpisodeCounts:
    prediction, wanted, ignored = logits > 0, target > 0.5, counted < 0.5
    return count_episode(class_name, prediction.numpy(), wanted.numpy(), ignored.numpy())


def _picture(batch: PhotoBatch, index: int, probability: Tensor, processor: DSVLFSProcessor) -> np.ndarray:
    """One episode in a row of tiles (tile, 3 tiles, 3)."""
    query, support = (_photo(pixels[index], processor) for pixels in (batch.query_pixels, batch.support_pixels))
    masks = (batch.support_mask[index], batch.target[index], probability)
    tiles = [
        overlay(photo, np.asarray(Image.fromarray(mask.numpy()).resize((_TILE, _TILE), Image.Resampling.BILINEAR)))
        for photo, mask in zip((support, query, query), masks)
    ]
    return np.concatenate([np.asarray(tile) for tile in tiles], axis=1)


def _photo(pixels: Tensor, processor: DSVLFSProcessor) -> Image.Image:
    """What an encoder saw, as a photo again."""
    config = processor.config
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (config.image_mean, config.image_std))
    values = ((pixels * deviation + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).numpy()).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
