"""The checkpoints of PASCAL-5i's folds, which come along beside the package."""

from pathlib import Path

import pytest

from dsvlfs import DSVLFSModel

FOLDS = Path(__file__).parents[1] / "train" / "checkpoints" / "pascal-5i"


@pytest.mark.parametrize("fold", range(4))
def test_a_folds_checkpoint_is_small_and_can_be_loaded(fold):
    folder = FOLDS / f"fold{fold}"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    model = DSVLFSModel.from_pretrained(folder)
    assert model.request_fit is not None
    assert not model.semantic_encoder.is_adapted
