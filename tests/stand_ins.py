"""What stands in for the model where a test is about something else."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
from PIL import Image

from dsvlfs.errors import InputError


class Shots(int):
    """A support that is nothing but the number of its photos."""

    @classmethod
    def join(cls, supports: "list[Shots]") -> "Shots":
        return cls(sum(supports))


class BrightnessModel:
    """Whatever is bright is the class."""

    calls: ClassVar[list[dict]] = []
    devices: ClassVar[list[str]] = []
    config: ClassVar[SimpleNamespace] = SimpleNamespace(long_descriptions=False)

    @classmethod
    def from_pretrained(cls, name: str) -> "BrightnessModel":
        if name == "absent":
            raise InputError("There is no checkpoint absent; give a folder.")
        return cls()

    def to(self, device: object) -> None:
        self.devices.append(str(device))

    def encode_support(self, examples: list) -> Shots:
        return Shots(len(examples))

    def encode_query(self, photo: Image.Image) -> Image.Image:
        return photo

    def segment(self, image: Image.Image, class_name: str, **options: object) -> SimpleNamespace:
        self.calls.append({"class_name": class_name, **options})
        probability = np.asarray(image.convert("L"), dtype=np.float32) / 255
        return SimpleNamespace(mask=probability >= options.get("threshold", 0.5), probability=probability)


class ContrastSegmenter:
    """Takes all that is not gray for the class, but for a stripe whose width the shots set."""

    config: ClassVar[SimpleNamespace] = SimpleNamespace(long_descriptions=False)

    def __init__(self) -> None:
        self.shots: list[int] = []

    def encode_support(self, examples: list) -> Shots:
        return Shots(len(examples))

    def encode_query(self, photo: Image.Image) -> Image.Image:
        return photo

    def segment(self, photo: Image.Image, class_name: str, *, support: int | None, mode: str) -> SimpleNamespace:
        self.shots.append(support)
        mask = np.abs(np.asarray(photo).astype(int) - 128).max(axis=-1) > 30
        mask[:, : 10 * (support or 2)] = False
        return SimpleNamespace(mask=mask)
