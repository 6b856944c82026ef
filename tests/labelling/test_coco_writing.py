import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from dsvlfs.labelling.formats.coco import LabelledPhoto, coco_document


def test_pycocotools_reads_the_masks_back(tmp_path, circle):
    mask = circle[1]
    pieces = np.zeros((5, 7), dtype=bool)
    pieces[0, 0] = pieces[4, 3:] = True
    photos = [
        LabelledPhoto("a.jpg", mask, 0.87654),
        LabelledPhoto("nothing.jpg", np.zeros((4, 6), dtype=bool), 0.0),
        LabelledPhoto("sub/b.jpg", pieces, 0.5),
    ]
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(coco_document(iter(photos), "red circle")))
    coco = COCO(file)
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.jpg", "nothing.jpg", "sub/b.jpg"]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["red circle"]
    first, second = coco.loadAnns(coco.getAnnIds())
    np.testing.assert_array_equal(coco.annToMask(first), mask)
    np.testing.assert_array_equal(coco.annToMask(second), pieces)
    assert (first["image_id"], second["image_id"]) == (1, 3)
    assert first["area"] == mask.sum()
    assert first["score"] == pytest.approx(0.8765)
    assert second["bbox"] == [0, 0, 7, 5]
    assert coco.getAnnIds(imgIds=[2]) == []
