"""What classes look like that no photo of the packs shows, by the vision tower's own classifier.

The tower was pretrained on ImageNet's thousand classes, of which the packs show some. A ridge regression in closed
form, from the classifier's weights of the classes that are shown to what their photos look like, tells what the others
look like: hundreds of names more for the fit of the semantic prompt, and no further photo.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hub.imagenet_classes import ImagenetClasses

_RIDGE = 0.3

# The classes that results are reported on, and their relatives.
_LIZARDS = {
    "banded gecko",
    "common iguana",
    "American chameleon",
    "whiptail",
    "agama",
    "frilled lizard",
    "Gila monster",
}
_LIZARDS |= {"alligator lizard", "green lizard", "African chameleon", "Komodo dragon"}
_BEETLES = {"tiger beetle", "ladybug", "ground beetle", "long-horned beetle", "leaf beetle", "dung beetle", "weevil"}
_BEETLES |= {"rhinoceros beetle"}
_CATS = {"leopard", "snow leopard", "jaguar", "lion", "tiger", "cheetah", "cougar", "lynx"}
_FOXES = {"red fox", "kit fox", "Arctic fox", "grey fox"}
_MUSTELINES = {"weasel", "mink", "polecat", "black-footed ferret", "otter", "skunk", "badger"}
_PARROTS = {"African grey", "macaw", "sulphur-crested cockatoo", "lorikeet"}
_FOOTWEAR = {"clog", "cowboy boot", "Loafer", "running shoe", "sandal", "sock", "Christmas stocking", "shoe shop"}
_PERCUSSION = {"chime", "drum", "gong", "maraca", "marimba", "steel drum", "grand piano", "upright"}
_UTENSILS = {"frying pan", "wok", "Crock Pot", "caldron", "Dutch oven", "spatula", "teapot", "coffeepot", "ladle"}
_UTENSILS |= {"waffle iron", "hot pot", "strainer"}
LEFT_OUT = frozenset().union(
    _LIZARDS, _BEETLES, _CATS, _FOXES, _MUSTELINES, _PARROTS, _FOOTWEAR, _PERCUSSION, _UTENSILS
)
"""First names of the classes that are never used."""


class ClassifierLooks:
    """The classes of a classifier that no object shows.

    Args:
        classes: of the classifier.
        entries: of the objects that are shown; one is of a class where it has all of the class's names.

    Attributes:
        names: of the classes that no object shows, one each.
        nearest: (classes that no object shows,), the object whose class is nearest to each.
    """

    def __init__(self, classes: ImagenetClasses, entries: list[dict]) -> None:
        index = {names: number for number, names in enumerate(classes.names) if names[0] not in LEFT_OUT}
        by_first: dict[str, list[tuple[str, ...]]] = {}
        for names in index:
            by_first.setdefault(names[0], []).append(names)
        shown = [
            (place, index[names])
            for place, entry in enumerate(entries)
            for names in by_first.get(entry["names"][0], [])
            if set(names) <= set(entry["names"])
        ]
        self._objects = torch.tensor([place for place, _ in shown], dtype=torch.long)
        self._shown = torch.tensor([number for _, number in shown], dtype=torch.long)
        known = {name for entry in entries for name in entry["names"]} | {classes.names[n][0] for n in self._shown}
        others = {names[0]: number for names, number in index.items() if names[0] not in known}
        self.names = list(others) if shown else []
        unit = F.normalize(classes.weights.double() - classes.weights.double().mean(dim=0), dim=1)
        self._kernel = unit[self._shown] @ unit[self._shown].T
        self._to_others = unit[[others[name] for name in self.names]] @ unit[self._shown].T
        self.nearest = self._objects[self._to_others.argmax(dim=1)] if shown else self._objects

    def predict(self, looks: Tensor, used: Tensor) -> Tensor:
        """What the classes of `names` look like.

        Args:
            looks: (objects, dim), float64.
            used: bool (objects,), the objects that may be learned from.

        Returns:
            (len(names), dim), of unit length; nought where no object may be learned from.
        """
        own = used[self._objects]
        if not own.any():
            return looks.new_zeros(len(self.names), looks.shape[1])
        seen = F.normalize(looks[self._objects[own]], dim=1)
        mean = seen.mean(dim=0)
        kernel = self._kernel[own][:, own]
        kernel.diagonal().add_(_RIDGE)
        return F.normalize(self._to_others[:, own] @ torch.linalg.solve(kernel, seen - mean) + mean, dim=1)
