"""Whatever photos, masks, names, marks, metadata, COCO, episodes and configs are given: a result or a sentence."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import build_micro_model, micro_config
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from properties import ANYTHING, SCALARS, changed, damaged, property_test, result_or_sentence

from dsvlfs.data.coco_reading import coco_rows
from dsvlfs.data.episodes import load_episodes
from dsvlfs.data.label_maps import load_label_maps
from dsvlfs.data.photos import load_coco, load_cutouts, load_photo_folder
from dsvlfs.data.schemas import Category, CocoPhoto
from dsvlfs.files import append_line, write_text
from dsvlfs.hub.checkpoint_files import read_config, read_tensors, write_tensors
from dsvlfs.inference.photos import load_mask, load_photo
from dsvlfs.inference.selection import mask_at_points, mask_in_box
from dsvlfs.training.settings import load_config


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> dict[str, Any]:
    """A folder to write to, and a model."""
    return {"folder": tmp_path_factory.mktemp("odd"), "model": build_micro_model()}


# Photos and masks -----------------------------------------------------------------------------------------------------

SHAPES = st.one_of(
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12),
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 5)),
    arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3),
)
DTYPES = st.sampled_from(
    [*("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4", "c8", "U2", "O", "M8[s]")]
)


def filled(dtype: str, shape: tuple[int, ...], seed: int, kind: str) -> np.ndarray:
    """An array of any type: random, of two values, of one, or with values that are none."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3 if kind == "signed" else 0, {"two": 2, "unit": 2}.get(kind, 300), shape).astype(float)
    if kind == "unit":
        values = rng.random(shape)
    if kind == "one":
        values = np.full(shape, float(seed % 300))
    with np.errstate(all="ignore"):
        array = values.astype("f8").astype(dtype) if np.dtype(dtype).kind != "M" else np.zeros(shape, dtype)
    if array.dtype.kind == "f" and kind == "signed" and array.size:
        array.flat[0] = [math.nan, math.inf, -math.inf, -0.0][seed % 4]
    return array


ARRAYS = st.builds(
    filled, DTYPES, SHAPES, st.integers(0, 10**6), st.sampled_from(["wide", "two", "unit", "one", "signed"])
)
MODES = [*("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "La", "RGBa", "I;16")]


def drawn(mode: str, size: tuple[int, int], seed: int, transparency: bool) -> Image.Image:
    image = Image.new(mode, size, seed % 200 if len(Image.new(mode, (1, 1)).getbands()) == 1 else None)
    if transparency:
        image.info["transparency"] = seed % 256
    return image


IMAGES = st.builds(
    drawn,
    st.sampled_from(MODES),
    st.tuples(st.integers(0, 12), st.integers(0, 12)),
    st.integers(0, 1000),
    st.booleans(),
)


def encoded(kind: str, mode: str) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    Image.fromarray(noise).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


FILES = st.one_of(
    *(
        damaged(encoded(kind, mode))
        for kind, mode in [
            *(("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "I;16"), ("JPEG", "RGB"), ("JPEG", "CMYK")),
            *(("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "F"), ("PPM", "RGB")),
            *(("TGA", "RGBA"), ("PCX", "L"), ("AVIF", "RGB")),
        ]
        if mode != "I;16"
    ),
    st.binary(max_size=80),
)


@property_test(ARRAYS | IMAGES | ANYTHING, quick=100)
def test_any_object_as_a_photo(source, folder, model):
    photo = result_or_sentence(lambda: load_photo(source))
    if photo is not None:
        assert photo.mode == "RGB"
        assert min(photo.size) >= 1


@property_test(FILES, quick=60)
def test_any_file_as_a_photo_and_as_a_mask(content, folder, model):
    (folder / "photo").write_bytes(content)
    photo = result_or_sentence(lambda: load_photo(folder / "photo"))
    assert photo is None or photo.mode == "RGB"
    mask = result_or_sentence(lambda: load_mask(folder / "photo", (32, 24)))
    assert mask is None or (mask.shape == (24, 32) and mask.any() and not mask.all())


@property_test(ARRAYS | IMAGES, st.booleans(), quick=100)
def test_any_object_as_a_mask(source, right_size, folder, model):
    size = source.size if isinstance(source, Image.Image) else source.shape[1::-1]
    mask = result_or_sentence(lambda: load_mask(source, tuple(size) if right_size else (7, 5)))
    if mask is not None:
        assert mask.dtype == bool
        assert mask.any()
        assert mask.shape == ((size[1], size[0]) if right_size else (5, 7))


@property_test(ANYTHING, quick=100)
def test_any_path_as_a_photo(path, folder, model):
    name = path if isinstance(path, str) else repr(path)
    assert result_or_sentence(lambda: load_photo(name)) is None
    assert result_or_sentence(lambda: load_photo(f"{folder}/{name}/more")) is None


@property_test(st.integers(1, 9), st.integers(1, 300), st.booleans(), quick=6, thorough=60)
def test_photos_of_any_shape_are_segmented(short, long, upright, folder, model):
    size = (short, long) if upright else (long, short)
    photo, mask = Image.new("RGB", size, "red"), np.zeros(size[::-1], bool)
    mask[-1, 0] = True
    result = result_or_sentence(lambda: model.segment(photo, "circle", support=model.encode_support([(photo, mask)])))
    assert result.mask.shape == size[::-1]


# Names, marks and options ---------------------------------------------------------------------------------------------

CHARACTERS = st.characters(codec=None, categories=None)


@property_test(st.text(CHARACTERS, max_size=300) | ANYTHING, st.none() | st.text(CHARACTERS, max_size=30), quick=100)
def test_any_name_and_description(name, description, folder, model):
    result_or_sentence(lambda: model.processor.question([(name, description)]))


@property_test(st.lists(st.floats() | st.integers(-5, 90), max_size=5) | ANYTHING, quick=15, thorough=300)
def test_any_mark(mark, folder, model):
    photo = Image.new("RGB", (80, 60), "gray")
    photo.paste("red", (20, 15, 50, 45))
    for call in (lambda: mask_in_box(model, photo, mark), lambda: mask_at_points(model, photo, [mark])):
        mask = result_or_sentence(call)
        assert mask is None or mask.shape == (60, 80)


@property_test(
    st.fixed_dictionaries(
        {},
        optional={
            name: ANYTHING
            for name in ("support", "description", "mode", "threshold", "min_presence", "aggregation", "batch_size")
        },
    ),
    quick=40,
    thorough=400,
)
def test_any_option(options, folder, model):
    photo = Image.new("RGB", (8, 6), "gray")
    result_or_sentence(lambda: model.segment(photo, "circle", **options))


# Data sets' files -----------------------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """JSON as careless programs write it: NaN, half surrogate pairs."""
    return json.dumps(value)


PHOTO = {"image": "a.png", "mask": "m.png", "name": "fox", "synonyms": ["reynard"], "hypernyms": ["canine"]} | {
    "definition": "a fox",
    "ignore": "m.png",
    "split": "train",
    "category": "animal/fox",
}
LINES = st.lists(changed(PHOTO) | ANYTHING, max_size=3).map(lambda lines: "\n".join(map(as_text, lines)))
TEXTS = st.one_of(
    LINES.map(str.encode),
    damaged(as_text(PHOTO).encode()),
    st.sampled_from([b"[" * 100_000, b'{"image": ' + b"9" * 5000 + b"}", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}\n\n"]),
)


@property_test(TEXTS, quick=60)
def test_any_metadata(content, folder, model):
    place = folder / "photos"
    place.mkdir(exist_ok=True)
    Image.new("RGBA", (9, 9)).save(place / "a.png")
    (place / "metadata.jsonl").write_bytes(content)
    write_text(place / "episodes.jsonl", '{"class_name": "fox", "query": "a", "support": ["a"]}\n')
    for load in (load_photo_folder, load_cutouts, lambda root: load_episodes(root, root / "episodes.jsonl")):
        result_or_sentence(lambda load=load: load(place))


EPISODE = {"class_name": "fox", "query": "a", "support": ["a"]}
KINDS = [
    EPISODE,
    EPISODE | {"category_id": 1, "query": 1, "support": [1]},
    EPISODE | {"position": 1, "distractors": ["a", "a", "a"]},
    EPISODE | {"data_set": "folder", "fold": None, "seed": 0},
]


@property_test(
    st.sampled_from(KINDS).flatmap(lambda kind: st.lists(changed(kind) | st.just(kind), max_size=3)), quick=60
)
def test_any_episodes(lines, folder, model):
    place = folder / "episodes"
    place.mkdir(exist_ok=True)
    Image.new("RGB", (9, 9)).save(place / "a.png")
    write_text(place / "metadata.jsonl", as_text({"image": "a.png", "mask": "a.png", "name": "fox"}))
    write_text(place / "episodes.jsonl", "".join(as_text(line) + "\n" for line in lines))
    episodes = result_or_sentence(lambda: load_episodes(place, place / "episodes.jsonl"))
    if episodes is not None:
        result_or_sentence(lambda: episodes[0])


NUMBERS = st.floats() | st.sampled_from([0, -1, 39.5, 10**9, 10**400])
SEGMENTATIONS = st.one_of(
    ANYTHING,
    st.lists(st.lists(NUMBERS | st.integers(-50, 90), max_size=9), max_size=3),
    st.fixed_dictionaries(
        {
            "size": st.just([30, 40]) | ANYTHING,
            "counts": st.one_of(
                st.just([600, 300, 300]),
                st.lists(st.integers(-5, 1300), max_size=5),
                st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12),
                ANYTHING,
            ),
        }
    ),
)
ANNOTATED = st.fixed_dictionaries(
    {
        "images": st.lists(changed({"id": 1, "file_name": "a.jpg", "height": 30, "width": 40}), max_size=2),
        "categories": st.lists(changed({"id": 1, "name": "person", "supercategory": "animal"}), max_size=2),
        "annotations": st.lists(
            SEGMENTATIONS.map(lambda shape: {"image_id": 1, "category_id": 1, "segmentation": shape})
            | changed({"image_id": 1, "category_id": 1, "segmentation": [[2, 2, 20, 2, 20, 20]]}),
            max_size=3,
        ),
    }
)


@property_test(ANNOTATED | changed({"images": [], "annotations": [], "categories": []}) | ANYTHING, quick=80)
def test_any_coco(content, folder, model):
    file = folder / "annotations" / "instances_v.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(as_text(content))
    result_or_sentence(lambda: load_coco(folder, "v"))

    def rows() -> list:
        describe = {"class_index": 0, "class_name": "a", "class_names": ["a"], "definition": ""}
        return list(coco_rows(file, CocoPhoto, Category, lambda photo: Path("a.jpg"), lambda category: describe))

    for row in result_or_sentence(rows) or []:
        assert row["area"] == np.count_nonzero(Image.open(io.BytesIO(row["mask"]["bytes"])))


@property_test(st.dictionaries(SCALARS.map(str), ANYTHING, max_size=3) | ANYTHING, st.sampled_from(MODES), quick=60)
def test_any_label_maps(classes, mode, folder, model):
    for part in ("images", "labels"):
        (folder / part).mkdir(exist_ok=True)
    Image.new("RGB", (9, 9)).save(folder / "images" / "a.png")
    image = Image.new(mode if mode in ("1", "L", "P", "RGB", "RGBA", "I", "LA", "I;16") else "L", (9, 9))
    image.save(folder / "labels" / "a.png")
    (folder / "classes.json").write_text(as_text(classes))
    result_or_sentence(lambda: load_label_maps(folder))


# Checkpoints and settings ---------------------------------------------------------------------------------------------

CONFIG = micro_config().to_dict()


@property_test(changed(CONFIG) | ANYTHING | st.sampled_from(["{class_name:>1000000000}"]), quick=60)
def test_any_config_of_a_checkpoint(settings, folder, model):
    if isinstance(settings, str):
        settings = CONFIG | {"prompt_template": settings}
    (folder / "config.json").write_text(as_text(settings))
    config = result_or_sentence(lambda: read_config(folder))
    if config is not None:
        text = config.prompt_template.format(image="", class_name="fox", description="")
        assert len(text) < 20_000


@property_test(st.data(), quick=20, thorough=300)
def test_any_tensors_of_a_checkpoint(data, folder, model):
    file = folder / "model.safetensors"
    write_tensors(file, dict(list(model.trained_state_dict().items())[:3]))
    whole = read_tensors(file)
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    found = result_or_sentence(lambda: read_tensors(file))
    assert found is None or all(found[name].equal(whole[name]) for name in whole)


TRAINING = {"size": "tiny", "steps": 5, "betas": [0.9, 0.99], "scenes": {"mosaic": 1}, "validation_files": [["a", "b"]]}


@property_test(changed(TRAINING) | ANYTHING, quick=60)
def test_any_settings_of_a_training(settings, folder, model):
    (folder / "training.yaml").write_text(yaml.dump(settings, allow_unicode=False))
    result_or_sentence(lambda: load_config(folder / "training.yaml"))
    (folder / "training.yaml").write_text(as_text(settings))
    result_or_sentence(lambda: load_config(folder / "training.yaml"))


@property_test(st.text(max_size=30), st.text(max_size=30), quick=10, thorough=100)
def test_any_name_of_a_file_that_is_written(name, text, folder, model):
    place = folder / "written"
    place.mkdir(exist_ok=True)
    result_or_sentence(lambda: write_text(place / name, text))
    result_or_sentence(lambda: append_line(place / name, text))
