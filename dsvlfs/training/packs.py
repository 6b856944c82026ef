"""The training packs: their photos as scenes, and the frozen features of these."""

from pathlib import Path

from datasets import concatenate_datasets

from ..data.photos import load_coco, load_cutouts, load_label_maps, load_photo_folder
from ..modeling import DSVLFSModel
from .feature_cache import FeatureCache
from .scenes import SceneComposer
from .settings import TrainingConfig

# Relatives of the classes that results are reported on (lizard, fox, big cat, musteline mammal, percussion instrument).
_RELATIVES_OF_NOVEL = frozenset({"lizards", "fox", "cats", "otter", "badger", "ferret", "percussion"})


def training_scenes(root: Path) -> SceneComposer:
    """The composer over every training pack under `root`."""
    streets = load_label_maps(root / "camvid_sample")
    # Frames of one drive resemble each other: a third of them tell the same.
    frames = set(sorted(set(streets["photo_id"]))[::3])
    streets = streets.select([i for i, photo_id in enumerate(streets["photo_id"]) if photo_id in frames])
    cutouts = load_cutouts(root / "stamps")
    kept = [i for i, names in enumerate(cutouts["class_names"]) if _RELATIVES_OF_NOVEL.isdisjoint(names)]
    return SceneComposer(
        singles=concatenate_datasets(
            [load_photo_folder(root / "imagenet_sample" / "train"), load_photo_folder(root / "clothing_sample")]
        ),
        scenes=concatenate_datasets([load_coco(root / "coco_sample", "train2017"), streets]),
        cutouts=cutouts.select(kept),
    )


def build_cache(config: TrainingConfig, model: DSVLFSModel, root: Path, folder: Path) -> FeatureCache:
    """Computes the frozen features that a run learns from, or what is missing of them."""
    cache = FeatureCache(folder)
    cache.build(
        model,
        training_scenes(root),
        scenes=config.scenes,
        scene_photos=config.scene_supports,
        seed=config.seed,
    )
    return cache
