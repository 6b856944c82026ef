"""Fits the calibration of a checkpoint's probability, on fields that training left out or on the training packs."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from .. import DSVLFSModel
from ..files import read_json, write_json
from ..inference.calibration import expected_calibration_error, fit_calibration, reliability
from .requests import coco_scenes, field_requests, training_mosaics


@dataclass(frozen=True)
class Calibrated:
    """What was fitted, as it was written.

    Args:
        temperature, bias: of the calibration.
        error_before, error_after: expected calibration error on what it was fitted to.
    """

    temperature: float
    bias: float
    error_before: float
    error_after: float


def calibrate(checkpoint: Path, root: Path, requests: int, fields: Sequence[str] = ()) -> Calibrated:
    """Fits the calibration and writes it to the checkpoint's `config.json`. No mask changes but for those that its
    limit on the presence leaves empty.

    Args:
        checkpoint: its folder.
        root: of the training packs.
        requests: number of mosaics, of COCO scenes, and of requests in the fields.
        fields: folders of `domains` that training left out; there a probability is believed too much that was fitted to
            photos which were trained on.

    Raises:
        InputError: the checkpoint or the packs cannot be used.
        BaseNotAvailableError: a base cannot be had.
    """
    file = checkpoint / "config.json"
    content = read_json(file)
    model = DSVLFSModel.from_pretrained(checkpoint)
    asked = itertools.chain(
        training_mosaics(root / "imagenet_sample" / "train", requests),
        coco_scenes(root / "coco_sample", requests),
        field_requests([root / "domains" / name for name in fields], requests),
    )
    logits, targets = [], []
    for class_name, query, mask, example in tqdm(asked, total=(3 if fields else 2) * requests):
        support = model.encode_support([example])
        found = model.predict(query, class_name, support=support, modes=["both"])["both"].deciding[0]
        target = Image.fromarray(mask).convert("L").resize((found.shape[1], found.shape[0]), Image.Resampling.BOX)
        logits.append(found.flatten())
        targets.append(torch.frombuffer(bytearray(target.tobytes()), dtype=torch.uint8) / 255)
    logits, targets = torch.cat(logits), torch.cat(targets)
    calibration = fit_calibration(logits, targets)
    before, after = (
        expected_calibration_error(reliability(own.sigmoid().numpy(), targets.numpy()))
        for own in (logits, calibration(logits))
    )
    fitted = Calibrated(round(calibration.temperature, 3), round(calibration.bias, 3), before, after)
    write_json(file, dict(sorted((content | {"calibration": [fitted.temperature, fitted.bias]}).items())))
    return fitted
