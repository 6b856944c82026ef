"""Stands in for `DSVLFSModel`: a class is a colour, and its name says which."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from dsvlfs.inference.calibration import Calibration
from dsvlfs.inference.results import Prediction, Segmentation

COLOURS = {"red": (255, 0, 0), "orange": (255, 128, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourModel:
    """`asked` counts what the model did, by the names of its methods."""

    config = SimpleNamespace(correlation_layers=["image.1"])
    asked: dict[str, int]

    def __init__(self) -> None:
        self.asked = {"encode_query": 0, "encode_support": 0, "predict": 0}

    @classmethod
    def from_pretrained(cls, name: str) -> "ColourModel":
        return cls()

    def to(self, device: object) -> None:
        pass

    def encode_support(self, examples: list) -> int:
        self.asked["encode_support"] += 1
        return len(examples)

    def encode_query(self, photo: Image.Image) -> Image.Image:
        self.asked["encode_query"] += 1
        return photo

    def predict(self, query: Image.Image, class_name: str, *, modes: list[str], **options: object) -> dict:
        self.asked["predict"] += 1
        apart = np.abs(np.asarray(query, dtype=np.float32) - COLOURS[class_name]).sum(axis=-1)
        logits = torch.from_numpy(4 - apart / 25)[None]
        found = Prediction(logits, query.size, 0.5, calibration=Calibration(), fits=(0.5,), min_presence=0.3)
        return {modes[0]: found}

    def segment(
        self,
        image: Image.Image,
        class_name: str,
        *,
        mode: str,
        threshold: float,
        min_presence: float | None,
        **options: object,
    ) -> Segmentation:
        found = self.predict(self.encode_query(image), class_name, modes=[mode], **options)[mode]
        return found.segmentation(threshold, min_presence=min_presence)
