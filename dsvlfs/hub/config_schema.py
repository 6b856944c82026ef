"""What a checkpoint's `config.json` may hold: its settings' types and ranges, so that a damaged one is told before any
weight is made room for."""

from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, FiniteFloat, with_config
from typing_extensions import TypedDict

from ..configuration import SEMANTIC_TOKEN
from ..parts.aggregation import Aggregation

_LARGEST = 10_000_000  # of any number in an architecture


def _is_template(text: str) -> str:
    try:
        fields = [field for field in Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"it is no template: {error}") from None
    # A width, such as {class_name:>1000000000}, could be anything.
    if any(width or conversion for _, _, width, conversion in fields):
        raise ValueError("its fields must be {image}, {class_name} and {description}, without a format")
    names = {name for _, name, _, _ in fields}
    if not {"image", "class_name"} <= names <= {"image", "class_name", "description"}:
        raise ValueError("its fields must be {image}, {class_name} and, where wanted, {description}")
    return text


def _holds_semantic_token(text: str) -> str:
    if text.count(SEMANTIC_TOKEN) != 1:
        raise ValueError(f"it must hold {SEMANTIC_TOKEN} once")
    return text


def _is_question_and_answer(pair: list[str]) -> list[str]:
    _is_template(pair[0])
    _holds_semantic_token(pair[1])
    return pair


def _are_distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("it must name each once")
    return names


def _is_architecture(value: dict[str, Any]) -> dict[str, Any]:
    """No number is beyond reason, at any depth."""
    rest: list[Any] = [value]
    while rest:
        entry = rest.pop()
        if isinstance(entry, dict):
            rest += entry.values()
        elif isinstance(entry, list):
            rest += entry
        elif isinstance(entry, (int, float)) and not abs(entry) <= _LARGEST:
            raise ValueError("it holds a number beyond reason")
    return value


_Architecture = Annotated[dict[str, Any], Field(min_length=1), AfterValidator(_is_architecture)]
_Name = Annotated[str, Field(min_length=1, max_length=1000)]
_Template = Annotated[str, Field(max_length=10_000), AfterValidator(_is_template)]
_Answer = Annotated[str, Field(max_length=10_000), AfterValidator(_holds_semantic_token)]
_Pair = Annotated[
    list[Annotated[str, Field(max_length=10_000)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_is_question_and_answer),
]
_Side = Annotated[int, Field(ge=14, le=2048)]
_Mean = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
_Deviation = Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=3, max_length=3)]
_Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
_Cosine = Annotated[FiniteFloat, Field(ge=-1, le=1)]
_Weight = Annotated[FiniteFloat, Field(ge=0, le=1e6)]
_Layers = Annotated[
    list[Annotated[str, Field(pattern=r"^(image\.[1-9][0-9]?|vision\.[0-9][0-9]?)$")]],
    Field(min_length=1, max_length=64),
]
_AdaptedLayers = Annotated[
    list[Literal["query", "key", "value", "output", "fc1", "fc2"]],
    Field(min_length=1),
    AfterValidator(_are_distinct),
]
_Channels = Annotated[int, Field(ge=1, le=4096)]


@with_config(ConfigDict(extra="forbid"))
class Prompts(TypedDict, total=False):
    """What a model is asked, and answers."""

    prompt_template: _Template
    answer_template: _Answer
    further_templates: Annotated[list[_Pair], Field(max_length=100)] | None
    answer_ends: bool
    photo_markers: list[Annotated[str, Field(min_length=1, max_length=100)]] | None


@with_config(ConfigDict(extra="allow"))
class Settings(Prompts, total=False):
    """The settings of `DSVLFSConfig`, which says what they mean; one that is left out has its default."""

    image_base: _Name
    image_config: _Architecture
    image_size: _Side
    image_mean: _Mean
    image_std: _Deviation
    pad_to_square: bool
    image_resample: Literal["bilinear", "bicubic"]
    image_lora_rank: Annotated[int, Field(ge=0, le=1024)]
    image_lora_alpha: Annotated[FiniteFloat, Field(gt=0, le=1e6)]
    image_lora_layers: _AdaptedLayers
    merge_tokens: bool
    vlm_base: _Name | None
    vision_base: _Name | None
    language_base: _Name | None
    vlm_config: _Architecture
    vlm_image_size: _Side
    vlm_mean: _Mean
    vlm_std: _Deviation
    vlm_crop: bool
    train_vlm_projector: bool
    train_token_embeddings: Literal["all", "added"]
    standardise_state: bool
    photo_state: bool
    lora_rank: Annotated[int, Field(ge=1, le=1024)]
    lora_alpha: Annotated[FiniteFloat, Field(gt=0, le=1e6)]
    lora_dropout: Annotated[FiniteFloat, Field(ge=0, lt=1)]
    description_weight: _Share
    unknown_word: _Cosine | None
    long_descriptions: bool
    correlation_layers: _Layers
    embedding_layers: _Layers | None
    grounding_layers: _Layers | None
    support_size: _Side
    support_context: Annotated[FiniteFloat, Field(ge=1, le=100)] | None
    support_grid: Annotated[int, Field(ge=1, le=256)] | None
    match_channels: Annotated[list[_Channels], Field(min_length=1, max_length=16)]
    match_background: bool
    match_priors: bool
    fit_ridge: Annotated[FiniteFloat, Field(gt=0, le=1e9)] | None
    fit_weight: Annotated[FiniteFloat, Field(ge=0, le=1000)]
    fit_doubt: _Share | None
    whole_weight: Annotated[FiniteFloat, Field(ge=0, le=1000)]
    whole_likeness: _Share
    doubted_likeness: _Share
    remembered_classes: Annotated[list[_Name], Field(min_length=1, max_length=100_000)] | None
    memory_weight: Annotated[FiniteFloat, Field(ge=0, le=1000)]
    detail_layers: _Layers | None
    prompt_dim: Annotated[int, Field(ge=8, le=4096)]
    decoder_multimask_outputs: Annotated[int, Field(ge=0, le=64)]
    text_loss_weight: _Weight
    bce_loss_weight: _Weight
    dice_loss_weight: _Weight
    fit_loss_weight: _Weight
    loss_side: _Side | None
    logit_offset: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
    calibration: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] | None
    min_presence: _Share
    name_trust: _Cosine | None
    name_doubt: _Cosine | None
    stranger_margin: Annotated[FiniteFloat, Field(ge=0, le=4)] | None
    vote_threshold: _Share
    shot_aggregation: Aggregation
