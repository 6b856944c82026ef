"""A checkpoint as ONNX files and a manifest, for engines that know no PyTorch."""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import InputError
from ..files import whole_folder, write_json
from ..modeling import DSVLFSModel
from .graphs import DecoderGraph, MatcherGraph, QueryGraph, SupportGraph

MANIFEST = "manifest.json"
_FORMAT = 2
_OPSET = 20


def export_onnx(model: DSVLFSModel, folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Writes `query.onnx`, `support.onnx`, `matcher.onnx`, `decoder.onnx` and `manifest.json`.

    The manifest says how photos become the graphs' inputs, names these inputs and the outputs, and holds the semantic
    prompts of the names. `dsvlfs.export.graphs` says what each graph computes; in all of them photos are one by one,
    and the matcher takes any number of supports side by side ("joint"). What the graphs leave out: the language model,
    the second look (`zoom`), whether the class is there at all (`presence`), and which parts of a mask are something
    else (`stranger_margin`). The fit to the supports' whole photos, which is solved once for them here, is solved anew
    in each run of the matcher. Its semantic prompt is nought where the name is not asked.

    Args:
        model: whose language model reads no photo, and whose photos are squares, as the packaged checkpoint's.
        folder: to write; of one that exists, nothing but an earlier export may be in it.
        names: classes to be asked for by name too.

    Returns:
        The files.

    Raises:
        InputError: onnxscript is missing, the folder holds something else, a name cannot be used, or the model is of
            another kind.
        WriteError: a file cannot be written.
    """
    _check(model, folder)
    config = model.config
    prompts = {name: _prompt(model, name) for name in names}
    model.eval()
    with whole_folder(folder) as partial, torch.no_grad(), _quiet():
        graphs = _write(model, partial)
        content = {
            "format": _FORMAT,
            "dsvlfs": __version__,
            "checkpoint": config.name_or_path or None,
            "image": {
                "mean": list(config.image_mean),
                "std": list(config.image_std),
                "resample": config.image_resample,
            },
            "vlm": {"mean": list(config.vlm_mean), "std": list(config.vlm_std), "resample": "bicubic"},
            "query": {"image_side": config.image_size, "vlm_side": config.vlm_image_size},
            "support": {
                "image_side": config.support_size,
                "vlm_side": min(config.support_size, config.vlm_image_size),
                "context": config.support_context,
            },
            "name_trust": config.name_trust,
            "graphs": graphs,
            "names": prompts,
        }
        write_json(partial / MANIFEST, content)
    return sorted(folder.iterdir())


def _check(model: DSVLFSModel, folder: Path) -> None:
    if importlib.util.find_spec("onnxscript") is None:
        raise InputError("ONNX files are written by onnxscript, which is missing; pip install 'dsvlfs[onnx]'.")
    if model.config.pad_to_square or model.config.vlm_crop or model.semantic_encoder.reads_photo:
        raise InputError(
            "Only checkpoints of size tiny whose language model reads no photo can be exported; give another --model."
        )
    if remembered := len(model.config.remembered_classes or []):
        raise InputError(
            f"The checkpoint remembers classes ({remembered}), which the graphs do not hold; export the one it was "
            "fine-tuned from."
        )
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / MANIFEST).is_file())):
        raise InputError(f"{folder} holds something else, which an export would replace; give a new folder.")


def _prompt(model: DSVLFSModel, name: str) -> list[float]:
    question = model.processor.question([(name, None)]).to(model.device)
    with torch.inference_mode():
        tokens = model.semantic_encoder.silent_tokens(1)
        return model.semantic_encoder.prompt(tokens, question)[0].float().tolist()


def _write(model: DSVLFSModel, folder: Path) -> dict[str, Any]:
    """Writes the graphs, each traced with what the ones before it made; gives what the manifest says of them."""
    config, device = model.config, model.device
    layers = config.correlation_layers

    def pixels(side: int) -> Tensor:
        return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)

    written = {}

    def write(name: str, graph: nn.Module, inputs: dict[str, Any], outputs: list[str], shapes: Any = None) -> Any:
        file = folder / f"{name}.onnx"
        flat = [own for key, value in inputs.items() for own in (value if isinstance(value, dict) else [key])]
        given = tuple(list(value.values()) if isinstance(value, dict) else value for value in inputs.values())
        program = torch.onnx.export(
            graph.eval(),
            given,
            input_names=flat,
            output_names=outputs,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            verbose=False,
        )
        program.save(file)
        written[name] = {"file": file.name, "inputs": flat, "outputs": outputs}
        return graph(*given)

    query = QueryGraph(model)
    sides = {"image_pixels": pixels(config.image_size), "vlm_pixels": pixels(config.vlm_image_size)}
    embedding, *kept = write("query", query, sides, ["embedding", *query.kept])
    features = dict(zip(query.kept, kept, strict=True))

    side = config.support_size
    sides = {"image_pixels": pixels(side), "vlm_pixels": pixels(min(side, config.vlm_image_size))}
    mask = torch.ones(1, side, side, device=device)
    mask[:, side // 4 : side // 2] = 0
    support_names = [f"support.{name}" for name in layers]
    given = sides | {"mask": mask}
    outputs = ["masks", *support_names]
    if config.whole_weight:
        side = config.image_size
        shown = torch.zeros(1, side, side, device=device)
        shown[:, side // 4 : side // 2] = 1
        names = ("whole_image_pixels", "whole_vlm_pixels", "whole_mask")
        given |= {"whole": dict(zip(names, (pixels(side), pixels(config.vlm_image_size), shown)))}
        whole_names = [f"whole.{name}" for name in layers]
        outputs += ["whole_masks", *whole_names]
    pooled, *support = write("support", SupportGraph(model), given, outputs)
    support, whole = support[: len(layers)], support[len(layers) :]

    semantic = torch.randn(1, config.prompt_dim, generator=torch.Generator().manual_seed(1)).to(device)
    twice = [
        torch.cat([layer, layer.flip(-1)]) for layer in support
    ]  # of one support, its number would be taken for fixed
    inputs = {
        "semantic_prompt": semantic,
        "query": {name: features[name] for name in layers},
        "support": dict(zip(support_names, twice, strict=True)),
        "masks": torch.cat([pooled, pooled.flip(-1)]),
    }
    shots = {0: torch.export.Dim("shots", min=1, max=1024)}
    shapes: tuple = (None, [None] * len(layers), [shots] * len(layers), shots)
    if whole:
        shown, *kept = (torch.cat([layer, layer.flip(-1)]) for layer in whole)
        inputs |= {"whole": dict(zip(whole_names, kept, strict=True)), "whole_masks": shown}
        shapes += ([shots] * len(layers), shots)
    visual, added, _ = write("matcher", MatcherGraph(model), inputs, ["visual", "added", "name_fit"], shapes)

    decoder = DecoderGraph(model)
    inputs = {
        "embedding": embedding,
        "layers": {name: features[name] for name in decoder.kept},
        "visual": visual,
        "added": added,
        "semantic_prompt": semantic,
        "name_heard": torch.ones(1, device=device),
    }
    write("decoder", decoder, inputs, ["logits"])
    return written


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of operators that no model here has."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
