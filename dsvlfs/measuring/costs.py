"""What a configuration costs, found on the meta device: every shape is computed, no weight and no number is made."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..configuration import DSVLFSConfig
from ..hub.assembly import layer_channels
from ..modeling import DSVLFSModel
from .peak_memory import HalvedProducts, PeakMemory, backward

TEXT_TOKENS = 128
"""Tokens of the question and its answer beside the photo's, with a description of some sentences."""

ANSWER_TOKENS = 4
"""Of them, the answer's: in training alone, and of these alone, is the vocabulary's share computed."""

BYTES = {"float32": 4.0, "bfloat16": 2.0, "8 bit": 1.0, "4 bit": 0.5}
"""Of a frozen weight."""


@dataclass(frozen=True)
class PartCost:
    """Parameters of a part, those of them that are trained, the floating-point operations of one query with its
    encoded supports, and the peak of what it makes in it, in bytes of float32."""

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
        inference_activations, training_activations: peak in bytes beside the weights and the optimizer's state, by
            precision ("float32" or "bfloat16"): of one query with encoded supports, and of a training step with a batch
            of one and one support, gradients included.
        supports: their number in inference.
    """

    parts: tuple[PartCost, ...]
    inference_activations: Mapping[str, int]
    training_activations: Mapping[str, int]
    supports: int = 1

    def memory(self, precision: str, *, training: bool) -> float:
        """Bytes of weights and activations; in training also of float32 gradients and AdamW's two moments.

        Args:
            precision: of the frozen weights, one of `BYTES`; trained weights are float32 in training, and in
                inference of 16 bits where the frozen ones are of fewer. Activations are of 16 bits then too; in
                training, as autocast makes them.
            training: a step, or a query.
        """
        trained = sum(part.trained for part in self.parts)
        frozen = sum(part.parameters for part in self.parts) - trained
        wide = "float32" if precision == "float32" else "bfloat16"
        if training:
            return frozen * BYTES[precision] + trained * 12.0 + self.training_activations[wide]
        return frozen * BYTES[precision] + trained * BYTES[wide] + self.inference_activations[wide]


def cost(config: DSVLFSConfig, supports: int = 1) -> Cost:
    """Builds the model on the meta device, and runs its parts there.

    Args:
        config: of the model.
        supports: photos that a query is compared with.
    """
    with torch.device("meta"):
        model = DSVLFSModel(config, load_bases=False)
    if config.vlm_base is not None:  # as train/configs has it for the sizes that take a whole LLaVA
        model.semantic_encoder.llava.model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    counted = _Tally()
    inference, training = {}, {}
    for precision in ("float32", "bfloat16"):
        tally = counted if precision == "float32" else None
        inference[precision], encoding, features = _query(model.to(getattr(torch, precision)), supports, tally)
        step, kept = _training_step(model, features)
        training[precision] = max(encoding + kept, step)  # a support is encoded beside the query's features
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
        parts.append(replace(counted.parts[name], parameters=sum(p.numel() for p in parameters), trained=trained))
    return Cost(tuple(parts), inference, training, supports)


def report(found: Cost) -> str:
    """Two tables: the parts, with their activations in float32, and the memory by precision, of a query with as many
    supports as were asked for, and of a training step with one."""
    rows = [(part.name, part.parameters, part.trained, part.flops, part.activations) for part in found.parts]
    sums = [sum(column) for column in list(zip(*rows))[1:4]]
    lines = [f"{'':<15}{'parameters':>15}{'trained':>14}{'GFLOP a query':>15}{'MiB a query':>13}"]
    lines += [
        f"{name:<15}{count:>15,}{trained:>14,}{flops / 1e9:>15,.1f}{activations / 2**20:>13,.0f}"
        for name, count, trained, flops, activations in [*rows, ("all", *sums, found.inference_activations["float32"])]
    ]
    lines += ["", f"{'frozen weights':<15}{'inference, GiB':>15}{'training, GiB':>14}"]
    for precision in BYTES:
        inference, training = (found.memory(precision, training=t) / 2**30 for t in (False, True))
        lines.append(f"{precision:<15}{inference:>15.2f}{training:>14.2f}")
    return "\n".join(lines)


def _query(model: DSVLFSModel, supports: int, tally: "_Tally | None") -> tuple[int, int, dict[str, Tensor]]:
    """A query's peak beside the weights, that of encoding alone, and the features.

    Args:
        model: in evaluation mode, of one precision.
        supports: encoded before.
        tally: of its parts; None follows the peak alone.
    """
    model.eval()
    with torch.no_grad(), tally or PeakMemory() as memory:
        shown = _support(model, supports)
        kept = memory.live
        features = _encode(model, tally)
        encoding = memory.peak - kept
        _read_and_match(model, features, *shown, tally)
    return memory.peak, encoding, features


def _training_step(model: DSVLFSModel, features: dict[str, Tensor]) -> tuple[int, int]:
    """The peak of a training step beside the weights and the optimizer's state, and the bytes of a photo's features; of
    weights in 16 bits, as autocast computes with trained ones in float32."""
    model.train()
    halved = model.dtype == torch.bfloat16
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    with PeakMemory() as memory, HalvedProducts() if halved else nullcontext():
        # In training the pixels are in float32, and so what the encoders make of them.
        features = {name: torch.empty_like(tensor, dtype=torch.float32) for name, tensor in features.items()}
        kept = memory.live
        layers, mask = _support(model, 1, torch.float32)
        # As `DSVLFSModel.forward` picks the samples with the visual prompt: a copy of each layer beside it.
        picked = {name: features[name][[0]] for name in model.config.correlation_layers}
        copies = [layer[[0]] for layer in layers]
        outputs = _read_and_match(model, features | picked, copies, mask, answers=True)
        loss = torch.stack([output.float().sum() for output in outputs]).sum()
        # Of these the backward pass sees what it keeps itself: `EpisodeLosses.forward` has returned.
        del features, layers, mask, picked, copies, outputs
        backward(loss)
    model.zero_grad()
    return memory.peak, kept


def _pixels(model: DSVLFSModel, side: int) -> Tensor:
    return torch.empty(1, 3, side, side, device="meta", dtype=model.image_encoder.backbone.dtype)


def _encode(model: DSVLFSModel, tally: "_Tally | None") -> dict[str, Tensor]:
    """The frozen encoders, of one photo."""
    config = model.config
    features = _count(tally, "image encoder", model.image_encoder, _pixels(model, config.image_size))
    pixels = _pixels(model, config.vlm_image_size)
    return features | _count(tally, "vision tower", model.semantic_encoder.encode_photo, pixels)


def _support(model: DSVLFSModel, supports: int, dtype: torch.dtype | None = None) -> tuple[list[Tensor], Tensor]:
    """What is kept of encoded supports: layers, in the encoder's precision unless another is named, and masks."""
    config, dtype = model.config, dtype or model.image_encoder.backbone.dtype
    grid = config.support_grid or config.support_size // config.image_encoder_config().patch_size
    channels = [layer_channels(config, name) for name in config.correlation_layers]
    layers = [torch.empty(supports, count, grid, grid, device="meta", dtype=dtype) for count in channels]
    return layers, torch.empty(supports, grid, grid, device="meta", dtype=model.dtype)


def _read_and_match(
    model: DSVLFSModel,
    features: dict[str, Tensor],
    support: list[Tensor],
    mask: Tensor,
    tally: "_Tally | None" = None,
    *,
    answers: bool = False,
) -> tuple[Tensor, Tensor]:
    """The rest: mask logits, and with `answers` the logits of the answer's text."""
    encoder = model.semantic_encoder

    def read(tokens: Tensor) -> tuple[Tensor, Tensor]:
        photo = encoder.llava.model.multi_modal_projector(tokens)
        text = encoder.llava.get_input_embeddings()(torch.zeros(1, TEXT_TOKENS, dtype=torch.long, device="meta"))
        embedded = torch.cat([photo, text], dim=1)
        # Made before, it is not looked into.
        causal = torch.empty(1, 1, *[embedded.shape[1]] * 2, device="meta", dtype=embedded.dtype)
        hidden = encoder.llava.model.language_model(
            inputs_embeds=embedded, attention_mask=causal, use_cache=False
        ).last_hidden_state
        logits = encoder.llava.lm_head(hidden[:, -ANSWER_TOKENS:]) if answers else hidden[:, :0]
        return encoder.project(hidden[:, -1]), logits

    semantic, answer = _count(tally, "language model", read, features["tokens"])
    embedding = _count(tally, "mask decoder", model.image_embedding, features)
    visual = _count(tally, "dense matching", model.visual_prompt, features, support, mask, embedding.shape[-1])
    if model.grounding is not None:
        visual = visual + _count(tally, "mask decoder", model.ground, features, semantic, embedding.shape[-1])
    shots = len(visual)
    asked = embedding.expand(shots, -1, -1, -1), semantic.expand(shots, -1), visual
    return _count(tally, "mask decoder", model.mask_decoder, *asked), answer


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


class _Tally(PeakMemory):
    """Also what each part has cost so far, but its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, PartCost] = {}
