"""Scenes put together from photos, so that a query holds more than the object that stands out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset
from PIL import Image, ImageOps

from ..data.mosaic import compose_mosaic


@dataclass(frozen=True)
class SceneObject:
    """What one mask of a scene shows.

    Args:
        photo_id: of the photo that it comes from.
        names: every class name that fits, the most specific first.
        definition: of the most specific name; may be empty.
        mask: bool (height, width) of the scene.
    """

    photo_id: str
    names: tuple[str, ...]
    definition: str
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A query photo, real or composed, with its objects.

    Args:
        kind: how it was made.
        image: RGB.
        objects: with masks of the image's size; those of one class may be several.
        ignore: bool (height, width), pixels that do not count; None where all do.
    """

    kind: str
    image: Image.Image
    objects: tuple[SceneObject, ...]
    ignore: np.ndarray | None = None


# Their photos are drawn for a class.
_IN_TURNS = ("photo", "collage")


class SceneComposer:
    """Makes training scenes from photos with masks, each from a seed of its own.

    Args:
        singles: photos with one object each (`dsvlfs.data.photos.FEATURES`).
        scenes: photos with several objects: rows that share a `photo_id` are one photo.
        cutouts: RGBA cut-outs; they are pasted onto photos, as the objects of `singles` are.
        prominent: numbers of the rows of `scenes` in which the class is large enough to draw the photo for, and to be a
            support; None takes all.
        parts: number of rows of each of the sets that `scenes` is made of, whose classes are labelled alike; None where
            it is one.
        side: of a composed scene, in pixels.
    """

    kinds = ("mosaic", "photo", "cutouts", "single", "collage", "blank")

    def __init__(
        self,
        *,
        singles: Dataset,
        scenes: Dataset,
        cutouts: Dataset,
        prominent: Sequence[int] | None = None,
        parts: Sequence[int] | None = None,
        side: int = 512,
    ) -> None:
        self.singles, self.scenes, self.cutouts = singles, scenes, cutouts
        self._ends = np.cumsum(parts or [len(scenes)])
        self.prominent = range(len(scenes)) if prominent is None else prominent
        self.side = side
        self._rows_of_name: dict[str, list[int]] = {}
        for index, names in enumerate(singles["class_names"]):
            for name in names:
                self._rows_of_name.setdefault(name, []).append(index)
        # Kinds wide enough to fill a mosaic with relatives, narrow enough that they are hard to tell apart.
        self._families = [rows for _, rows in sorted(self._rows_of_name.items()) if 12 <= len(rows) <= 250]
        self._rows_of_photo: dict[str, list[int]] = {}
        for index, photo_id in enumerate(scenes["photo_id"]):
            self._rows_of_photo.setdefault(photo_id, []).append(index)
        self._photos_of_part: dict[int, list[str]] = {}
        for photo_id, rows in self._rows_of_photo.items():
            self._photos_of_part.setdefault(self._part_of(rows[0]), []).append(photo_id)
        photos_of_class: dict[str, list[str]] = {}
        ids, names = scenes["photo_id"][:], scenes["class_name"][:]
        for index in self.prominent:
            photos_of_class.setdefault(names[index], []).append(ids[index])
        # Sets hold many photos of few classes: the classes take turns.
        self._photos_of_class = [photos for _, photos in sorted(photos_of_class.items())]

    def compose(self, kind: str, seed: Sequence[int]) -> Scene:
        """Makes a scene; the same kind and seed make the same scene.

        Args:
            kind: one of `kinds`.
            seed: any integers; of a photo or a collage, the last one's turn is a class's.
        """
        rng = np.random.default_rng(seed)
        scene = getattr(self, f"_{kind}")(rng, *([seed[-1]] if kind in _IN_TURNS else []))
        return _flipped(scene) if rng.random() < 0.5 else scene

    def _mosaic(self, rng: np.random.Generator) -> Scene:
        rows, columns = [(2, 2), (2, 2), (2, 2), (1, 2), (2, 1), (3, 3), (2, 3)][rng.integers(7)]
        pool = self._families[rng.integers(len(self._families))] if rng.random() < 0.4 else range(len(self.singles))
        chosen = rng.choice(np.asarray(pool), rows * columns, replace=False)
        entries = [self.singles[int(i)] for i in chosen]
        tiles = [_random_crop(rng, *_decode(entry)) for entry in entries]
        image, masks = compose_mosaic(tiles, rows, columns, self.side // max(rows, columns))
        return Scene("mosaic", image, tuple(_object(entry, mask) for entry, mask in zip(entries, masks)))

    def _single(self, rng: np.random.Generator) -> Scene:
        entry = self.singles[int(rng.integers(len(self.singles)))]
        image, mask = _random_crop(rng, *_decode(entry))
        return Scene("single", image, (_object(entry, mask),))

    def _photo(self, rng: np.random.Generator, turn: int) -> Scene:
        return self._view("photo", self._drawn(rng, turn), rng, smallest=0.45, whole=0.4)

    def _collage(self, rng: np.random.Generator, turn: int) -> Scene:
        """Photos of one set as the tiles of a larger one: what they show is small, and much else is there."""
        first = self._drawn(rng, turn)
        rows, columns = [(2, 2), (2, 2), (2, 1), (1, 2), (3, 3)][rng.integers(5)]
        alike = self._photos_of_part[self._part_of(self._rows_of_photo[first][0])]
        others = [alike[i] for i in rng.integers(len(alike), size=rows * columns - 1)]
        # Each photo once: its objects are found by its name.
        ids = [first, *(name for i, name in enumerate(others) if name not in (first, *others[:i]))]
        ids += [None] * (rows * columns - len(ids))
        views = [
            None if i is None else self._view("photo", i, rng, smallest=0.6, whole=0.6) for i in rng.permutation(ids)
        ]
        size = self.side // max(rows, columns)
        scene = Image.new("RGB", (columns * size, rows * size))
        objects, ignore = [], np.zeros(scene.size[::-1], dtype=bool)
        for place, view in enumerate(views):
            if view is None:
                continue
            top, left = (number * size for number in divmod(place, columns))
            scene.paste(view.image.resize((size, size), Image.Resampling.BICUBIC), (left, top))
            for item in view.objects:
                mask = np.zeros_like(ignore)
                mask[top : top + size, left : left + size] = _resized(item.mask, size)
                objects.append(replace(item, mask=mask))
            if view.ignore is not None:
                ignore[top : top + size, left : left + size] = _resized(view.ignore, size)
        return Scene("collage", scene, tuple(objects), ignore if ignore.any() else None)

    def _blank(self, rng: np.random.Generator) -> Scene:
        """A photo of nothing: one colour, a blend of four, or noise of some coarseness."""
        cells = [1, 2, 8, 32, 128, self.side][rng.integers(6)]
        base = rng.uniform(0, 255, 3)
        pixels = np.clip(base + rng.uniform(5, 120) * rng.standard_normal((cells, cells, 3)), 0, 255)
        how = [Image.Resampling.NEAREST, Image.Resampling.BICUBIC][rng.integers(2)]
        return Scene("blank", Image.fromarray(pixels.astype(np.uint8)).resize((self.side, self.side), how), ())

    def _drawn(self, rng: np.random.Generator, turn: int) -> str:
        """A photo that shows the class whose turn it is."""
        photos = self._photos_of_class[turn % len(self._photos_of_class)]
        return photos[rng.integers(len(photos))]

    def _view(self, kind: str, photo_id: str, rng: np.random.Generator, *, smallest: float, whole: float) -> Scene:
        """A photo, or a part of it."""
        entries = [self.scenes[i] for i in self._rows_of_photo[photo_id]]
        image = entries[0]["image"].convert("RGB")
        box = (0, 0, *image.size) if rng.random() >= 1 - whole else _random_box(rng, image.size, smallest=smallest)
        objects = tuple(_object(entry, np.array(entry["mask"].crop(box)) > 0) for entry in entries)
        ignore = entries[0]["ignore"]
        return Scene(kind, image.crop(box), objects, ignore and np.array(ignore.crop(box)) > 0)

    def _part_of(self, row: int) -> int:
        """Number of the set that a row of `scenes` is from."""
        return int(np.searchsorted(self._ends, row, side="right"))

    def _cutouts(self, rng: np.random.Generator) -> Scene:
        background, objects = self._ground(rng)
        cells = rng.permutation(4)[: rng.integers(2, 5)]
        for cell in cells:
            pool = self.cutouts if rng.random() < 0.4 else self.singles
            entry = pool[int(rng.integers(len(pool)))]
            cutout = _cut_out(entry)
            longest = self.side * rng.uniform(0.15, 0.6)
            scale = longest / max(cutout.size)
            cutout = cutout.resize([max(1, round(length * scale)) for length in cutout.size], Image.Resampling.BICUBIC)
            centre = (np.array(divmod(cell, 2)) + 0.5 + rng.uniform(-0.15, 0.15, 2)) * self.side / 2
            corner = tuple(int(c - length / 2) for c, length in zip(centre, cutout.size))
            background.paste(cutout, corner, cutout)
            layer = Image.new("L", background.size)
            layer.paste(cutout.getchannel("A"), corner)
            mask = np.array(layer) > 127
            objects = [replace(below, mask=below.mask & ~mask) for below in objects]
            objects.append(_object(entry, mask))
        return Scene("cutouts", background, tuple(objects))

    def _ground(self, rng: np.random.Generator) -> tuple[Image.Image, list[SceneObject]]:
        """Part of a photo to paste onto, on the scene's square, with the objects that it shows: left out, they would
        teach that what looks like the class is background."""
        image, photo_id, box = self._part(rng)
        size = (self.side, self.side)
        entries = [self.scenes[i] for i in self._rows_of_photo[photo_id]]
        masks = [entry["mask"].convert("L").crop(box).resize(size, Image.Resampling.NEAREST) for entry in entries]
        objects = [_object(entry, np.array(mask) > 0) for entry, mask in zip(entries, masks)]
        return image.resize(size, Image.Resampling.BICUBIC), objects

    def background(self, rng: np.random.Generator) -> Image.Image:
        """Part of a photo, for a cut-out to stand on."""
        return self._part(rng)[0]

    def _part(self, rng: np.random.Generator) -> tuple[Image.Image, str, tuple[int, int, int, int]]:
        """Part of a photo, the photo's id, and the part's box."""
        entry = self.scenes[int(rng.integers(len(self.scenes)))]
        photo = entry["image"].convert("RGB")
        box = _random_box(rng, photo.size, smallest=0.5)
        return photo.crop(box), entry["photo_id"], box


def _decode(entry: dict) -> tuple[Image.Image, np.ndarray]:
    return entry["image"].convert("RGB"), np.array(entry["mask"]) > 0


def _cut_out(entry: dict) -> Image.Image:
    """The object alone, RGBA: of a photo, the box around its mask."""
    if entry["image"].mode == "RGBA":
        return entry["image"]
    cutout, mask = entry["image"].convert("RGB"), entry["mask"].convert("L")
    cutout.putalpha(mask)
    return cutout.crop(mask.getbbox())


def _object(entry: dict, mask: np.ndarray) -> SceneObject:
    return SceneObject(entry["photo_id"], tuple(entry["class_names"]), entry["definition"], mask)


def _random_crop(rng: np.random.Generator, image: Image.Image, mask: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """A part of the photo that keeps most of its object; the whole photo half of the time."""
    if rng.random() < 0.5:
        return image, mask
    for _ in range(5):
        left, top, right, bottom = _random_box(rng, image.size, smallest=0.6)
        if mask[top:bottom, left:right].sum() >= 0.7 * mask.sum():
            return image.crop((left, top, right, bottom)), mask[top:bottom, left:right]
    return image, mask


def _random_box(rng: np.random.Generator, size: tuple[int, int], smallest: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a part whose sides are at least `smallest` of the photo's."""
    lengths = [max(1, round(side * rng.uniform(smallest, 1))) for side in size]
    left, top = (int(rng.integers(side - length + 1)) for side, length in zip(size, lengths))
    return left, top, left + lengths[0], top + lengths[1]


def _resized(mask: np.ndarray, side: int) -> np.ndarray:
    return np.array(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))


def _flipped(scene: Scene) -> Scene:
    objects = tuple(replace(item, mask=item.mask[:, ::-1].copy()) for item in scene.objects)
    ignore = None if scene.ignore is None else scene.ignore[:, ::-1].copy()
    return replace(scene, image=ImageOps.mirror(scene.image), objects=objects, ignore=ignore)
