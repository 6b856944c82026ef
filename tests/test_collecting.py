"""The collector waits while something is loaded, and is then as it was."""

import gc

import pytest

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.collecting import uncollected


def test_it_is_as_it_was_afterwards():
    with uncollected(), uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), uncollected():
        raise KeyError
    assert gc.isenabled()


def test_who_turned_it_off_finds_it_off():
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_checkpoint_that_cannot_be_loaded_leaves_it_on(tmp_path):
    with pytest.raises(InputError):
        DSVLFSModel.from_pretrained(tmp_path)
    assert gc.isenabled()
