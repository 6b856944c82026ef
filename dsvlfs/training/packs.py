"""The training packs: their photos as scenes, and the frozen features of these."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets

from ..data.label_maps import load_label_maps
from ..data.named_sets import NAMED_SETS, load_index
from ..data.photos import FEATURES, load_coco, load_cutouts, load_own_photos, load_photo_folder
from ..errors import InputError
from ..modeling import DSVLFSModel
from .feature_cache import FeatureCache
from .scenes import SceneComposer
from .settings import DEFAULT_PACKS, OWN_PHOTOS, TrainingConfig

# Relatives of the classes that results are reported on (lizard, fox, big cat, musteline mammal, percussion instrument).
_RELATIVES_OF_NOVEL = frozenset({"lizards", "fox", "cats", "otter", "badger", "ferret", "percussion"})


def training_scenes(
    root: Path, packs: Collection[str] = DEFAULT_PACKS, left_out: Collection[str] = ()
) -> SceneComposer:
    """The composer over training packs.

    Args:
        root: their folder.
        packs: their names, of `dsvlfs.training.settings.PACK_NAMES`.
        left_out: folders of `domains` that are passed over.

    Raises:
        InputError: a pack is missing or laid out wrong, or there is no such folder of `domains`.
    """
    singles = [load_photo_folder(root / name / _PHOTO_FOLDERS[name]) for name in packs if name in _PHOTO_FOLDERS]
    scenes: list[Dataset] = []
    prominent: list[int] = []
    known = 0
    for name in packs:
        if name in _SCENES:
            rows, chosen = _SCENES[name](root if name == OWN_PHOTOS else root / name, left_out)
            scenes.append(rows)
            prominent += [known + int(row) for row in chosen]
            known += len(rows)
    cutouts = load_cutouts(root / "stamps") if "stamps" in packs else _none()
    kept = [i for i, names in enumerate(cutouts["class_names"]) if _RELATIVES_OF_NOVEL.isdisjoint(names)]
    return SceneComposer(
        singles=concatenate_datasets(singles or [_none()]),
        scenes=concatenate_datasets(scenes or [_none()]),
        cutouts=cutouts.select(kept),
        prominent=prominent,
        parts=[len(rows) for rows in scenes],
    )


def build_cache(config: TrainingConfig, model: DSVLFSModel, root: Path, folder: Path) -> FeatureCache:
    """Computes the frozen features of the packs' photos, or what is missing of them: the same for every fold and
    whichever classes are left out."""
    cache = FeatureCache(folder)
    cache.build(
        model,
        training_scenes(root, config.packs, config.left_out_packs),
        scenes=config.scenes,
        class_supports=config.class_supports,
        seed=config.seed,
        pixels=config.learns_image,
    )
    return cache


def _streets(root: Path, _: Collection[str]) -> tuple[Dataset, Collection[int]]:
    streets = load_label_maps(root)
    # Frames of one drive resemble each other: a third of them tell the same.
    frames = set(sorted(set(streets["photo_id"]))[::3])
    streets = streets.select([i for i, photo_id in enumerate(streets["photo_id"]) if photo_id in frames])
    return streets, range(len(streets))


def _coco(root: Path, _: Collection[str]) -> tuple[Dataset, Collection[int]]:
    rows = load_coco(root, "train2017")
    return rows, range(len(rows))


def _pascal(root: Path, _: Collection[str]) -> tuple[Dataset, Collection[int]]:
    index = load_index("pascal-5i", root, "train")
    large = np.array(index["area"][:]) >= NAMED_SETS["pascal-5i"].smallest_area
    return index.remove_columns(["class_index", "area"]).cast(FEATURES), np.flatnonzero(large)


def _domains(root: Path, left_out: Collection[str]) -> tuple[Dataset, Collection[int]]:
    names = sorted(folder.name for folder in root.iterdir() if (folder / "classes.json").is_file())
    if unknown := sorted(set(left_out) - set(names)):
        raise InputError(f"There is no folder {unknown[0]} in {root} to leave out; correct left_out_packs.")
    rows = concatenate_datasets(
        [load_label_maps(root / name, smallest_share=0.002) for name in names if name not in left_out]
    )
    return rows, range(len(rows))


def _own(root: Path, _: Collection[str]) -> tuple[Dataset, Collection[int]]:
    rows = load_own_photos(root)
    return rows, range(len(rows))


def _none() -> Dataset:
    return Dataset.from_dict({name: [] for name in FEATURES}, features=FEATURES)


_PHOTO_FOLDERS = {"imagenet_sample": "train", "clothing_sample": "."}
_SCENES: dict[str, Callable[[Path, Collection[str]], tuple[Dataset, Collection[int]]]] = {
    "coco_sample": _coco,
    "camvid_sample": _streets,
    "VOC2012": _pascal,
    "domains": _domains,
    OWN_PHOTOS: _own,
}
