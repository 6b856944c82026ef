"""What a configuration costs, found on the meta device: every shape is computed, no weight and no number is made."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..configuration import DSVLFSConfig
from ..modeling import DSVLFSModel

TEXT_TOKENS = 128
"""Tokens of the question and its answer beside the photo's, with a description of some sentences."""

BYTES = {"float32": 4.0, "bfloat16": 2.0, "8 bit": 1.0, "4 bit": 0.5}
"""Of a frozen weight."""


@dataclass(frozen=True)
class PartCost:
    """Parameters of a part, those of them that are trained, the floating-point operations of one query, and the peak of
    what it makes in it, in bytes of float32."""

    name: str
    parameters: int
    trained: int
    flops: int
    activations: int = 0


@dataclass(frozen=True)
class Cost:
    """Of a configuration.

    Args:
        parts: in the order of the data's flow.
        inference_activations, training_activations: peak in bytes beside the weights (and, in training, beside their
            gradients), in float32: of one query with one encoded support, and of a training step with a batch of one
            without recomputation but the matching's.
    """

    parts: tuple[PartCost, ...]
    inference_activations: int
    training_activations: int

    def memory(self, precision: str, *, training: bool) -> float:
        """Bytes of weights and activations; in training also of float32 gradients and AdamW's two moments.

        Args:
            precision: of the frozen weights, one of `BYTES`; trained weights are float32 in training, and in
                inference of 16 bits where the frozen ones are of fewer. Activations are of 16 bits then too.
            training: a step, or a query.
        """
        trained = sum(part.trained for part in self.parts)
        frozen = sum(part.parameters for part in self.parts) - trained
        wide = 4.0 if precision == "float32" else 2.0
        if training:
            return frozen * BYTES[precision] + trained * 16.0 + self.training_activations * wide / 4
        return frozen * BYTES[precision] + trained * wide + self.inference_activations * wide / 4


def cost(config: DSVLFSConfig) -> Cost:
    """Builds the model on the meta device, and runs its parts there."""
    with torch.device("meta"):
        model = DSVLFSModel(config, load_bases=False).eval()
    with torch.no_grad(), _Tally() as inference:
        features = _encode(model, inference)
        _read_and_match(model, features, inference)
    with PeakMemory() as training:
        sum(output.sum() for output in _read_and_match(model, features)).backward()
    gradients = sum(4 * parameter.numel() for parameter in model.parameters() if parameter.grad is not None)
    kept = sum(tensor.nbytes for tensor in features.values()) - gradients
    encoder = model.semantic_encoder
    modules: dict[str, list[nn.Module]] = {
        "image encoder": [model.image_encoder],
        "vision tower": [encoder.vision_tower],
        "language model": [
            encoder.llava.model.multi_modal_projector,
            encoder.llava.model.language_model,
            encoder.llava.lm_head,
            encoder.to_prompt,
        ],
        "dense matching": [part for part in (model.matcher, model.shot_attention) if part],
        "mask decoder": [model.mask_decoder, *(part for part in (model.neck, model.grounding) if part)],
    }
    parts = []
    for name, members in modules.items():
        parameters = {id(p): p for module in members for p in module.parameters()}.values()  # a tied matrix counts once
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        parts.append(replace(inference.parts[name], parameters=sum(p.numel() for p in parameters), trained=trained))
    return Cost(tuple(parts), inference.peak, max(inference.peak, training.peak + kept))


def report(found: Cost) -> str:
    """Two tables: the parts, with their activations in float32, and the memory by precision."""
    rows = [(part.name, part.parameters, part.trained, part.flops, part.activations) for part in found.parts]
    sums = [sum(column) for column in list(zip(*rows))[1:4]]
    lines = [f"{'':<15}{'parameters':>15}{'trained':>14}{'GFLOP a query':>15}{'MiB a query':>13}"]
    lines += [
        f"{name:<15}{count:>15,}{trained:>14,}{flops / 1e9:>15,.1f}{activations / 2**20:>13,.0f}"
        for name, count, trained, flops, activations in [*rows, ("all", *sums, found.inference_activations)]
    ]
    lines += ["", f"{'frozen weights':<15}{'inference, GiB':>15}{'training, GiB':>14}"]
    for precision in BYTES:
        inference, training = (found.memory(precision, training=t) / 2**30 for t in (False, True))
        lines.append(f"{precision:<15}{inference:>15.2f}{training:>14.2f}")
    return "\n".join(lines)


def _encode(model: DSVLFSModel, tally: "_Tally") -> dict[str, Tensor]:
    """The frozen encoders, of one photo."""

    def pixels(side: int) -> Tensor:
        return torch.empty(1, 3, side, side, device="meta")

    config = model.config
    features = _count(tally, "image encoder", model.image_encoder, pixels(config.image_size))
    return features | _count(tally, "vision tower", model.semantic_encoder.encode_photo, pixels(config.vlm_image_size))


def _read_and_match(
    model: DSVLFSModel, features: dict[str, Tensor], tally: "_Tally | None" = None
) -> tuple[Tensor, Tensor]:
    """The rest, with one support: mask logits, and the logits of the text."""
    config, encoder = model.config, model.semantic_encoder
    grid = config.support_grid or features[config.correlation_layers[0]].shape[-1]
    support = [torch.empty(1, features[name].shape[1], grid, grid, device="meta") for name in config.correlation_layers]

    def read(tokens: Tensor) -> tuple[Tensor, Tensor]:
        photo = encoder.llava.model.multi_modal_projector(tokens)
        text = encoder.llava.get_input_embeddings()(torch.zeros(1, TEXT_TOKENS, dtype=torch.long, device="meta"))
        embedded = torch.cat([photo, text], dim=1)
        causal = torch.empty(1, 1, *[embedded.shape[1]] * 2, device="meta")  # made before, it is not looked into
        hidden = encoder.llava.model.language_model(
            inputs_embeds=embedded, attention_mask=causal, use_cache=False
        ).last_hidden_state
        return encoder.project(hidden[:, -1]), encoder.llava.lm_head(hidden[:, -TEXT_TOKENS:])

    semantic, answer = _count(tally, "language model", read, features["tokens"])
    embedding = _count(tally, "mask decoder", model.image_embedding, features)
    mask = torch.empty(1, grid, grid, device="meta")
    visual = _count(tally, "dense matching", model.visual_prompt, features, support, mask, embedding.shape[-1])
    if model.grounding is not None:
        visual = visual + _count(tally, "mask decoder", model.ground, features, semantic, embedding.shape[-1])
    return _count(tally, "mask decoder", model.mask_decoder, embedding, semantic, visual), answer


def _count(tally: "_Tally | None", name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function, and adds what it costs to a part."""
    if tally is None:
        return function(*arguments)
    live, peak, tally.peak = tally.live, tally.peak, tally.live
    with FlopCounterMode(display=False) as counter:
        result = function(*arguments)
    before = tally.parts.get(name, PartCost(name, 0, 0, 0))
    flops, activations = before.flops + counter.get_total_flops(), max(before.activations, tally.peak - live)
    tally.parts[name] = replace(before, flops=flops, activations=activations)
    tally.peak = max(peak, tally.peak)
    return result


class PeakMemory(TorchDispatchMode):
    """Follows the tensors that are made while it is on: their bytes at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()
        self._results: dict[tuple, tuple] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        for tensor in _tensors((*arguments, *(options or {}).values())):
            self._known.add(tensor.untyped_storage()._cdata)  # made before, or met before
        result = self._call(function, arguments, options or {})
        for tensor in _tensors((result,)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        return result

    def _call(self, function: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        """Calls a function. On the meta device the shape of a sum or a product is slow to find, and a model asks for
        the same ones again and again: they are remembered by the arguments' shapes."""
        if torch.Tag.pointwise not in function.tags or function.is_view or options:
            return function(*arguments, **options)
        key = (function, *(_layout(a) if isinstance(a, Tensor) else (type(a), a) for a in arguments))
        if key in self._results:
            if function._schema.is_mutable:
                return arguments[0]
            shape, stride, dtype, device = self._results[key]
            return torch.empty_strided(shape, stride, dtype=dtype, device=device)
        result = function(*arguments)
        if isinstance(result, Tensor) and result.is_meta:
            self._results[key] = _layout(result)
        return result

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.live -= size


def _layout(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among an operation's arguments or results, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


class _Tally(PeakMemory):
    """Also what each part has cost so far, but its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, PartCost] = {}
