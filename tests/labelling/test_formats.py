"""Each format is read back by its own tool, where that is installed: `pip install dsvlfs[readers]`, or datumaro in an
environment of its own."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image, ImageDraw
from pycocotools import mask as masks
from pycocotools.coco import COCO

from dsvlfs.data.label_maps import load_label_maps
from dsvlfs.labelling import formats
from dsvlfs.labelling.labelled import LabelledPhoto, LabelledPhotos
from dsvlfs.labelling.labels import Figures, ObjectFigures

CLASSES = ["red fox", "owl <&> 'é'"]
NAMES = ["a.png", "sub/a b é.jpg", "nothing.png"]
WIDTH, HEIGHT = 150, 110


def shapes(kind: int) -> np.ndarray:
    """A map of two classes: one in two parts, one of them with a hole, and one that touches it."""
    image = Image.new("L", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(image)
    if kind < 2:
        pen.ellipse((10, 10, 70, 60 + 10 * kind), fill=1)
        pen.ellipse((30, 25, 45, 40), fill=0)
        pen.rectangle((100, 5, 140, 30), fill=1)
        pen.polygon([(60, 60), (120, 40), (149, 109), (40, 100)], fill=2)
    return np.array(image)


def encoded(kind: int, suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (30 * kind, 60, 90)).save(buffer, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return buffer.getvalue()


def labelled(folder: Path, *, objects: bool = False) -> LabelledPhotos:
    """Three photos in a folder, the last without any class, which was emptied."""

    def photos():
        for kind, name in enumerate(NAMES):
            classes = shapes(kind)
            figures = [
                Figures(100 * float((classes == n).mean()), 0.9 - n / 10 if kind < 2 else 0.0, 0.7, 0.6, kind == 2)
                for n in (1, 2)
            ]
            things, numbers = None, None
            if objects:
                numbers = classes.astype(np.uint16)
                numbers[:, 90:][classes[:, 90:] == 1] = 3
                things = [
                    ObjectFigures(n, (0, 0, 1, 1), int((numbers == place).sum()), 0.5 + place / 10, 0.6)
                    for place, n in ((1, 1), (2, 2), (3, 1))
                ] * (kind < 2)
            yield LabelledPhoto(
                name,
                classes,
                figures=figures,
                objects=things,
                object_map=numbers,
                read=lambda kind=kind, name=name: encoded(kind, name[-3:]),
                path=folder / name if (folder / name).exists() else None,
            )

    return LabelledPhotos(CLASSES, photos, len(NAMES))


@pytest.fixture
def write(tmp_path: Path):
    """Writes a format; returns the output folder."""

    def run(name: str, *, objects: bool = False) -> Path:
        photos = tmp_path / "photos"
        for kind, file in enumerate(NAMES):
            (photos / file).parent.mkdir(parents=True, exist_ok=True)
            (photos / file).write_bytes(encoded(kind, file[-3:]))
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        [writer] = [w for w in formats.chosen([name]) if w.__module__.endswith(formats.FORMATS[name])]
        writer(labelled(photos, objects=objects), out)
        return out

    return run


def iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def class_masks(coco: COCO, number: int) -> dict[int, np.ndarray]:
    """Masks by category, of a photo."""
    masks = {category: np.zeros((HEIGHT, WIDTH), dtype=bool) for category in coco.getCatIds()}
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[number])):
        masks[annotation["category_id"]] |= coco.annToMask(annotation) > 0
    return masks


@pytest.mark.parametrize(
    ("name", "file", "least"),
    [
        ("coco", "annotations.json", 1.0),
        ("coco-polygons", "annotations_polygons.json", 0.98),
        ("cvat", "cvat/annotations/instances_default.json", 1.0),
    ],
)
@pytest.mark.parametrize("objects", [False, True])
def test_pycocotools_reads_cocos_documents(write, capsys, name, file, least, objects):
    coco = COCO(write(name, objects=objects) / file)
    coco.info()
    assert "contributor: dsvlfs" in capsys.readouterr().out
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == NAMES
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == CLASSES
    for number in (1, 2, 3):
        for category, mask in class_masks(coco, number).items():
            assert iou(mask, shapes(number - 1) == category) >= least
    assert len(coco.getAnnIds(imgIds=[1])) == (3 if objects else 2)
    first = coco.loadAnns(coco.getAnnIds())[0]
    figures = first["attributes"] if name == "cvat" else first
    assert (figures["score"], figures["presence"]) == (0.6 if objects else 0.8, 0.6)
    assert coco.imgs[3]["labels"]["red fox"]["is_emptied"] is True


@pytest.mark.parametrize("objects", [False, True])
def test_cocos_document_is_as_fiftyones_importer_wants_it(write, tmp_path, objects):
    """It takes photos by their paths in `data_path`, an annotation's fields as names, and the mask inside the box."""
    document = json.loads((write("coco", objects=objects) / "annotations.json").read_text(encoding="utf-8"))
    photos = {image["id"]: image for image in document["images"]}
    assert all((tmp_path / "photos" / image["file_name"]).is_file() for image in photos.values())
    categories = {category["id"] for category in document["categories"]}
    numbers = [entry["id"] for entry in document["annotations"]]
    assert len(set(numbers)) == len(numbers) > 0
    for entry in document["annotations"]:
        assert all(name.isidentifier() for name in entry)
        assert entry["category_id"] in categories
        mask = masks.decode(entry["segmentation"]).astype(bool)
        assert mask.shape == (photos[entry["image_id"]]["height"], photos[entry["image_id"]]["width"])
        left, top, width, height = (round(value) for value in entry["bbox"])
        assert mask.sum() == mask[top : top + height, left : left + width].sum() == entry["area"]
        assert 0 <= entry["score"] <= 1


@pytest.mark.parametrize("objects", [False, True])
def test_fiftyone_reads_cocos_document(write, tmp_path, objects):
    coco = pytest.importorskip(
        "fiftyone.utils.coco", reason="fiftyone is not installed, or its database does not start"
    )
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(tmp_path / "photos"),
        labels_path=str(write("coco", objects=objects) / "annotations.json"),
        label_types="segmentations",
    )
    with importer:
        read = {path: (size, found) for path, size, found in importer}
    assert len(read) == 3
    for number, name in enumerate(NAMES):
        size, found = read[str(tmp_path / "photos" / name)]
        assert (size.width, size.height) == (WIDTH, HEIGHT)
        detections = found.detections if found else []
        assert len(detections) == ((3 if objects else 2) if number < 2 else 0)
        for index, label in enumerate(CLASSES, 1):
            whole = np.zeros((HEIGHT, WIDTH), dtype=bool)
            for detection in (entry for entry in detections if entry.label == label):
                left, top = (round(at * side) for at, side in zip(detection.bounding_box, (WIDTH, HEIGHT)))
                rows, columns = detection.mask.shape
                whole[top : top + rows, left : left + columns] |= detection.mask.astype(bool)
                assert 0 < detection.confidence <= 1
                assert detection["presence"] == 0.6
            np.testing.assert_array_equal(whole, shapes(number) == index)


def test_datasets_reads_the_parquet_and_the_card(write, tmp_path):
    out = write("huggingface", objects=True)
    rows = load_dataset(str(out / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["photo"][:] == NAMES
    assert rows["is_emptied"][:] == [False, False, True]
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(np.asarray(row["mask"]), shapes(number))
        assert row["image"].size == (WIDTH, HEIGHT)
        assert [entry["class_name"] for entry in row["classes"]] == CLASSES
        assert row["classes"][0]["presence"] == pytest.approx(0.6)
    assert [entry["class_number"] for entry in rows[0]["objects"]] == [1, 2, 1]
    assert np.asarray(rows[0]["object_map"]).max() == 3
    card = (out / "dataset/README.md").read_text(encoding="utf-8")
    assert "task_categories:\n- image-segmentation" in card
    assert CLASSES[1] in card


def test_label_maps_are_read_as_the_named_sets_are(write):
    out = write("index-png", objects=True) / "index_png"
    assert json.loads((out / "classes.json").read_text(encoding="utf-8"))["2"] == CLASSES[1]
    for number, name in enumerate(NAMES):
        with Image.open(out / "labels" / Path(name).with_suffix(".png")) as image:
            assert image.mode == "P"
            assert image.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]  # PASCAL VOC's first two
            np.testing.assert_array_equal(np.asarray(image), shapes(number))
    (out / "images").mkdir()
    (out / "images/a.png").write_bytes(encoded(0, "png"))
    assert load_label_maps(out)["class_name"][:] == CLASSES
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))["labels/a.png"]
    assert figures["objects"]["3"] == {"class": "red fox", "score": 0.8, "expected_iou": 0.6, "presence": 0.6}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("objects", [False, True])
def test_supervision_reads_yolo(write, objects):
    supervision = pytest.importorskip("supervision")
    out = write("yolo", objects=objects) / "yolo"
    read = 0
    for folder in ("", "sub/"):
        found = supervision.DetectionDataset.from_yolo(
            str(out / f"images/train/{folder}"), str(out / f"labels/train/{folder}"), str(out / "data.yaml"), True
        )
        assert found.classes == CLASSES
        for path, image, detections in found:
            number = [Path(name).stem for name in NAMES].index(Path(path).stem)
            number = 1 if folder else number
            read += 1
            assert image.shape == (HEIGHT, WIDTH, 3)
            assert len(detections) == (0 if number == 2 else 3)
            for index in (1, 2) if number < 2 else ():
                mask = detections.mask[detections.class_id == index - 1].any(axis=0)
                assert iou(mask, shapes(number) == index) >= 0.98
    assert read == 3


@pytest.mark.filterwarnings("ignore")
def test_supervision_reads_labelme(write, tmp_path):
    supervision = pytest.importorskip("supervision")
    out = write("labelme")
    found = supervision.DetectionDataset.from_labelme(str(tmp_path / "photos"), str(out / "labelme"), force_masks=True)
    assert len(found) == 2  # of this folder
    for path, _, detections in found:
        number = [Path(name).stem for name in NAMES].index(Path(path).stem)
        assert len(detections) == (2 if number == 0 else 0)  # parts of one group are one
        for index in (1, 2) if number == 0 else ():
            mask = detections.mask[detections.class_id == found.classes.index(CLASSES[index - 1])].any(axis=0)
            assert iou(mask, shapes(number) == index) >= 0.98


def test_labelme_reads_its_files_and_finds_the_photos(write, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    labelme = pytest.importorskip("labelme")
    out = write("labelme") / "labelme"
    for number, name in enumerate(NAMES):
        file = labelme.LabelFile(str(out / Path(name).with_suffix(".json")))
        with Image.open(io.BytesIO(file.image_data)) as image:
            assert image.size == (WIDTH, HEIGHT)
        values = {name: index for index, name in enumerate(CLASSES, 1)}
        classes, _ = labelme.utils.shapes_to_label((HEIGHT, WIDTH), file.shapes, values)
        for index in (1, 2):
            assert iou(classes == index, shapes(number) == index) >= 0.98
        assert all(shape["other_data"]["presence"] == 0.6 for shape in file.shapes)
        assert any(file.flags.values()) == (number == 2)


def test_label_studio_reads_the_brushes(write, tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter")
    from label_studio_sdk.converter import brush

    out = write("label-studio", objects=True) / "label_studio"
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    assert tasks[0]["data"]["photo"].endswith("=a.png")
    for number, task in enumerate(tasks):
        masks = {name: np.zeros((HEIGHT, WIDTH), dtype=bool) for name in CLASSES}
        for result in task["predictions"][0]["result"]:
            values = np.reshape(brush.decode_rle(result["value"]["rle"]), (HEIGHT, WIDTH, 4))
            masks[result["value"]["brushlabels"][0]] |= values[:, :, 3] > 0
        for index, name in enumerate(CLASSES, 1):
            np.testing.assert_array_equal(masks[name], shapes(number) == index)
    assert tasks[2]["data"]["labels"]["red fox"]["is_emptied"] is True
    # What an annotator accepts as it is, exported.
    for number, task in enumerate(tasks):
        task["id"] = number
        task["annotations"] = [{"id": number, "result": task.pop("predictions")[0]["result"], "completed_by": {}}]
    (tmp_path / "accepted.json").write_text(json.dumps(tasks))
    (tmp_path / "export").mkdir()
    export = converter.Converter(str(out / "config.xml"), project_dir=str(tmp_path), download_resources=False)
    export.convert(str(tmp_path / "accepted.json"), str(tmp_path / "export"), "BRUSH_TO_PNG", is_dir=False)
    written = sorted((tmp_path / "export").glob("task-0-*.png"))
    assert len(written) == 3
    assert sum(np.asarray(Image.open(file)).astype(bool).sum() for file in written) == (shapes(0) > 0).sum()


def test_cvats_reader_has_masks_and_attributes(write):
    datumaro = pytest.importorskip("datumaro")
    out = write("cvat", objects=True) / "cvat"
    (out / "images").mkdir()  # that reader wants the photos' folder; CVAT has them already
    found = {item.id: item for item in datumaro.Dataset.import_from(str(out), "coco_instances")}
    assert sorted(found) == sorted(name.rpartition(".")[0] for name in NAMES)
    for number, name in enumerate(NAMES):
        annotations = found[name.rpartition(".")[0]].annotations
        masks = [entry for entry in annotations if entry.type == datumaro.AnnotationType.mask]
        assert all(entry.attributes["presence"] == 0.6 for entry in masks)
        assert len(masks) == (3 if number < 2 else 0)
        for index in (1, 2) if number < 2 else ():
            one = np.any([entry.image for entry in masks if entry.label == index - 1], axis=0)
            np.testing.assert_array_equal(one.astype(bool), shapes(number) == index)


def test_what_a_person_corrected_in_a_folder_stays(write):
    file = write("labelme") / "labelme" / "a.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["shapes"] = []
    file.write_text(json.dumps(content))
    out = write("labelme") / "labelme"
    assert json.loads((out / "a.json").read_text(encoding="utf-8"))["shapes"] == []
    (out / "a.json").unlink()
    assert json.loads((write("labelme") / "labelme/a.json").read_text(encoding="utf-8"))["shapes"] != []
