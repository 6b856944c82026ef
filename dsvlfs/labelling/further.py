"""Further supports: labels that a person has accepted or drawn, and wants to be learned from."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .label_files import decode, read_map
from .labeller import Sample
from .photos_source import Photos
from .record import Label
from .request import Request

ASIDE = "set_aside"
"""Folder of what a person accepted or drew on a photo that has another content since."""


@dataclass(frozen=True)
class FurtherSupports:
    """Labels of a folder that are supports as well.

    Args:
        labels: in the order in which a person chose them.
    """

    labels: tuple[Label, ...]

    @property
    def made_with(self) -> str:
        """Another text for other supports; '' without any."""
        return "+".join(str(label.number) for label in self.labels)


def further_supports(labels: Iterable[Label]) -> FurtherSupports:
    """Those among the labels of a folder."""
    chosen = [label for label in labels if label.is_support and label.is_held]
    return FurtherSupports(tuple(sorted(chosen, key=lambda label: label.number)))


def further_samples(photos: Photos, folder: Path, further: FurtherSupports, request: Request) -> list[Sample]:
    """The supports as a labeller takes them, of each class that is in them.

    Args:
        photos: that were labelled.
        folder: of the labels.
        further: what to read.
        request: of the run; by the name alone, there are no supports.

    Raises:
        InputError: a photo or its mask cannot be read.
    """
    if request.mode == "semantic" or not further.labels:
        return []
    names = [entry.name for entry in request.classes]
    places = {name: index for index, name in enumerate(photos.names)}
    samples = []
    for label in further.labels:
        if label.photo not in places:  # it is among the photos no longer
            continue
        photo = decode(photos.read(places[label.photo]), label.photo)
        class_map = read_map(folder / label.mask, len(names))
        for number in (int(number) for number in np.unique(class_map) if number):
            samples.append(Sample(photo, class_map == number, names[number - 1]))
    return samples


def set_aside(folder: Path, label: Label) -> None:
    """Moves a label's files to where no run writes: the photo is another one now, or they are damaged."""
    for name in filter(None, (label.mask, label.objects)):
        file = folder / name
        if file.is_file():
            place = folder / ASIDE / f"{file.relative_to(folder).with_suffix('')}-{label.digest[:8]}{file.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
