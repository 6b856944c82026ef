"""The checkpoints that come along beside the package: of PASCAL-5i's folds."""

from pathlib import Path

import pytest

from dsvlfs import DSVLFSModel

CHECKPOINTS = Path(__file__).parents[1] / "train" / "checkpoints" / "pascal-5i"


@pytest.mark.parametrize("fold", range(4))
def test_a_checkpoint_is_small_and_can_be_loaded(fold):
    folder = CHECKPOINTS / f"fold{fold}"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    model = DSVLFSModel.from_pretrained(folder)
    assert model.request_fit is not None
    assert not model.semantic_encoder.is_adapted
