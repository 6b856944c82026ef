"""Every knob of the model, and the three sizes."""

from typing import Any

from transformers import AutoConfig, LlavaConfig, PreTrainedConfig

from .parts.architectures import (
    dinov2_small_config,
    llava_15_7b,
    llava_half_b,
    sam_vit_base,
    sam_vit_huge,
    tiny_llava,
)

SEMANTIC_TOKEN = "<SEM_prompt>"
IMAGE_TOKEN = "<image>"

_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class DSVLFSConfig(PreTrainedConfig):
    """Configuration of `DSVLFSModel`. A layer is named `image.N` (output of the image encoder's N-th block, from 1) or
    `vision.N` (output of the LLaVA vision tower's N-th stage, from 0).

    Args:
        image_base: name of the image encoder's frozen base (see `dsvlfs.hub.bases`).
        image_config: its architecture (DINOv2 or SAM's ViT).
        image_size: side of the square that the image encoder sees, in pixels.
        image_mean, image_std: its normalisation, of values in [0, 1].
        pad_to_square: pad the shorter side (SAM) rather than stretch it.
        image_resample: "bilinear" (SAM, whose longer side becomes `image_size`) or "bicubic".
        image_lora_rank, image_lora_alpha: LoRA on the linear layers of a DINOv2's blocks, which lets training change
            what the image encoder sees (`dsvlfs.parts.image_adapter`); a rank of 0 leaves it as it is, as the paper
            does.
        image_lora_layers: which of each block's: "query", "key", "value", "output", "fc1", "fc2".
        merge_tokens: a query's tokens that are alike are merged on their way through DINOv2
            (`dsvlfs.parts.token_merging`): about half the image encoder's time, for features that are not quite the
            same. Supports, training and exported graphs stay exact, and so does SAM's ViT.
        vlm_base: name of a whole pretrained LLaVA; or None, to join `vision_base` and `language_base` to one.
        vision_base, language_base: names of the LLaVA's vision tower and language model where `vlm_base` is None.
        vlm_config: the LLaVA's architecture, without the tokens that this model adds.
        vlm_image_size, vlm_mean, vlm_std: as for the image encoder.
        vlm_crop: the vision tower sees the middle of the photo, whose shorter side becomes `vlm_image_size` (CLIP),
            rather than all of it, stretched; only where none of its layers is compared with the image encoder's.
        train_vlm_projector: train LLaVA's projector (it is new where `vlm_base` is None).
        train_token_embeddings: "all" (paper: embeddings and LM head) or "added" (the new token's rows).
        standardise_state: shift and scale the language model's state by constants before it is projected to the prompt.
        photo_state: the semantic prompt is that of the class read without the photo, and what a second state adds that
            read both (`dsvlfs.parts.photo_prompt`); False has the one state of the paper, which reads both.
        lora_rank, lora_alpha, lora_dropout: LoRA on the language model's q_proj and v_proj.
        prompt_template: question to the LLaVA, with {image}, {class_name} and {description}.
        photo_markers: tokens of the template that are added to the vocabulary, such as `<im_start>` and `<im_end>`
            around the photo.
        description_weight: weight of the semantic prompt of the question with the description, where there is one; the
            rest is that of the name alone, which a wrong or useless description cannot spoil. The paper's is 1.
        unknown_word: where the language model does not know the name, its description has the whole weight: a name
            whose state has this cosine or more with what words that mean nothing have in common
            (`dsvlfs.parts.unknown_words`), unless fine-tuning has taught it (`remembered_classes`). It tells where
            `standardise_state` is on and training has fitted it; None takes every name for known.
        long_descriptions: whether the bank's paragraph describes a class, where it has one (the paper's texts have some
            200 words), rather than its sentence.
        answer_template: its teacher-forced answer; holds `<SEM_prompt>`.
        further_templates: pairs of another question and its answer; training draws from all of them, and inference asks
            by the first alone. None trains with that one.
        answer_ends: whether the end of the text after the answer is taught as well.
        correlation_layers: layers whose cosines are the channels of the 4D correlation.
        embedding_layers: layers that a trained neck fuses to the decoder's image embedding; None takes the embedding of
            the image encoder's own neck (SAM).
        grounding_layers: layers that the semantic prompt is compared with at every position, for a map that joins the
            dense prompt; None gives the decoder the prompt alone, as the paper does.
        support_size: side of the square support view, in pixels.
        support_context: the support view is cropped to this many times the mask's bounding box; None keeps the photo.
        support_grid: side to which support features are pooled, in positions; None keeps their own.
        match_channels: output channels of the center-pivot 4D convolutions.
        match_background: correlate with the support's background as well, as further channels.
        fit_ridge: strength of the ridge regression that tells the request's foreground from its background, in closed
            form from all supports together, for a map that joins the dense prompt; None leaves it out, as the paper
            does.
        fit_weight: so many times that map, from -1 to 1, is added to the mask's logits in inference for each support
            beyond the first, up to five: more supports make the fit surer than the decoder learned to take it.
        fit_doubt: it is added only where the supports foretell one another (`dsvlfs.parts.request_fit.foretold`) with
            an IoU under this; None adds it always.
        whole_weight: so many times the map of a fit to the supports' whole photos (`dsvlfs.parts.whole_fit`), from -1
            to 1, is added to the mask's logits in inference where the query is like them, for one support and for
            several that are joined before the mask ("joint", "attention"); 0 leaves it out, and supports are then
            encoded around their masks alone. It needs `fit_ridge`.
        whole_likeness: the likeness of query and supports from which on it is added.
        doubted_likeness: the same of one support with both prompts where the name is doubted (`name_doubt`).
        remembered_classes: names of classes that fine-tuning remembered from its photos: asked for by one of these, the
            map of what it remembers (`dsvlfs.parts.class_memory`) stands in place of that of the fit to the request,
            and serves without supports as well. None remembers nothing; needs `fit_ridge`.
        memory_weight: so many times such a map is added to the mask's logits.
        detail_layers: two layers finer than the decoder's embedding, for twice and for four times its side, that join
            it as it is upscaled; None upscales it alone, as SAM does.
        match_priors: also give the visual prompt each channel's mean and maximum over the support positions,
            standardised over the query's.
        prompt_dim: channels of the prompts and of the decoder.
        decoder_multimask_outputs: spare mask tokens of SAM's decoder (3 where SAM's weights are loaded).
        text_loss_weight, bce_loss_weight, dice_loss_weight: weights of the three losses.
        fit_loss_weight: weight of a further loss, of the map of the fit to the request alone: the cross-entropy of a
            position of the query being foreground. It has something to teach where the image encoder learns.
        loss_side: side of the square on which the mask losses are taken, of logits brought there and of targets of 0
            and 1 (the reference: SAM's own postprocessing); None takes the logits as they are, and of each position
            the share that is foreground.
        logit_offset: added to the mask's logits, which moves the probability of 0.5 to where mIoU is best.
        calibration: [temperature, bias] that make a calibrated probability of the mask's logits with their offset; None
            where nobody has fitted them (`dsvlfs calibrate`).
        min_presence: where less speaks for the class being in the photo (`Segmentation.presence`), the mask by name and
            supports is left empty; 0 empties none.
        name_trust: with both prompts, the least cosine of the semantic prompt and what the supports show, in the space
            of the grounding, from which on the name is heard; one that fits less is left out. Its layers have to be
            among those of the correlation. None hears every name, as the paper does.
        name_doubt: the name is doubted where that cosine is under this: the thing is then new to the model, and what
            a single support's photo says counts in queries that are less like it too. None doubts no name.
        stranger_margin: a connected part of a mask by name is left out whose look fits the name and the supports less
            than the best part's does by more than this (`dsvlfs.inference.strangers`), unless there are several
            supports and the name is doubted. It needs what `name_trust` does. None leaves out none.
        vote_threshold: with K shots, share of the largest vote count at which a pixel is foreground.
        shot_aggregation: how K shots become one mask (see `dsvlfs.parts.aggregation`); "attention" has weights of
            its own.

    The defaults are those of `paper`.
    """

    model_type = "dsvlfs"

    def __init__(
        self,
        image_base: str = "facebook/sam-vit-huge",
        image_config: dict[str, Any] | None = None,
        image_size: int = 1024,
        image_mean: list[float] = _IMAGENET_MEAN,
        image_std: list[float] = _IMAGENET_STD,
        pad_to_square: bool = True,
        image_resample: str = "bilinear",
        image_lora_rank: int = 0,
        image_lora_alpha: float = 16,
        image_lora_layers: list[str] = ["query", "value"],  # noqa: B006
        merge_tokens: bool = False,
        vlm_base: str | None = "llava-hf/llava-1.5-7b-hf",
        vision_base: str | None = None,
        language_base: str | None = None,
        vlm_config: dict[str, Any] | None = None,
        vlm_image_size: int = 336,
        vlm_mean: list[float] = [0.48145466, 0.4578275, 0.40821073],  # noqa: B006 (CLIP's; PreTrainedConfig copies)
        vlm_std: list[float] = [0.26862954, 0.26130258, 0.27577711],  # noqa: B006
        vlm_crop: bool = True,
        train_vlm_projector: bool = False,
        train_token_embeddings: str = "all",
        standardise_state: bool = False,
        photo_state: bool = False,
        lora_rank: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.05,
        prompt_template: str = "USER: {image}\n{description}Where in this photo is the {class_name}? ASSISTANT:",
        photo_markers: list[str] | None = None,
        answer_template: str = f" It is {SEMANTIC_TOKEN}.",
        further_templates: list[list[str]] | None = None,
        answer_ends: bool = False,
        description_weight: float = 1.0,
        unknown_word: float | None = None,
        long_descriptions: bool = True,
        correlation_layers: list[str] | None = None,
        embedding_layers: list[str] | None = None,
        grounding_layers: list[str] | None = None,
        support_size: int = 1024,
        support_context: float | None = None,
        support_grid: int | None = None,
        match_channels: tuple[int, ...] = (16, 128, 256),
        match_background: bool = False,
        match_priors: bool = False,
        fit_ridge: float | None = None,
        fit_weight: float = 0.0,
        fit_doubt: float | None = None,
        whole_weight: float = 0.0,
        whole_likeness: float = 0.62,
        doubted_likeness: float = 0.5,
        remembered_classes: list[str] | None = None,
        memory_weight: float = 8.0,
        detail_layers: list[str] | None = None,
        prompt_dim: int = 256,
        decoder_multimask_outputs: int = 3,
        text_loss_weight: float = 1.0,
        bce_loss_weight: float = 2.0,
        dice_loss_weight: float = 0.5,
        fit_loss_weight: float = 0.0,
        loss_side: int | None = None,
        logit_offset: float = 0.0,
        calibration: list[float] | None = None,
        min_presence: float = 0.0,
        name_trust: float | None = None,
        name_doubt: float | None = None,
        stranger_margin: float | None = None,
        vote_threshold: float = 0.5,
        shot_aggregation: str = "votes",
        **kwargs: Any,
    ) -> None:
        self.image_base = image_base
        self.image_config = image_config or sam_vit_huge().to_dict()
        self.image_size = image_size
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.pad_to_square = pad_to_square
        self.image_resample = image_resample
        self.image_lora_rank = image_lora_rank
        self.image_lora_alpha = image_lora_alpha
        self.image_lora_layers = list(image_lora_layers)
        self.merge_tokens = merge_tokens
        self.vlm_base = vlm_base
        self.vision_base = vision_base
        self.language_base = language_base
        self.vlm_config = vlm_config or llava_15_7b().to_dict()
        self.vlm_image_size = vlm_image_size
        self.vlm_mean, self.vlm_std = list(vlm_mean), list(vlm_std)
        self.vlm_crop = vlm_crop
        self.train_vlm_projector = train_vlm_projector
        self.train_token_embeddings = train_token_embeddings
        self.standardise_state = standardise_state
        self.photo_state = photo_state
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.prompt_template = prompt_template
        self.photo_markers = photo_markers
        self.answer_template = answer_template
        self.further_templates = further_templates and [list(pair) for pair in further_templates]
        self.answer_ends = answer_ends
        self.description_weight = description_weight
        self.unknown_word = unknown_word
        self.long_descriptions = long_descriptions
        self.correlation_layers = correlation_layers or [f"image.{n}" for n in range(1, 33)]
        self.embedding_layers = embedding_layers
        self.grounding_layers = grounding_layers
        self.support_size = support_size
        self.support_context = support_context
        self.support_grid = support_grid
        self.match_channels = tuple(match_channels)
        self.match_background = match_background
        self.match_priors = match_priors
        self.fit_ridge = fit_ridge
        self.fit_weight = fit_weight
        self.fit_doubt = fit_doubt
        self.whole_weight = whole_weight
        self.whole_likeness = whole_likeness
        self.doubted_likeness = doubted_likeness
        self.remembered_classes = remembered_classes and list(remembered_classes)
        self.memory_weight = memory_weight
        self.detail_layers = detail_layers
        self.prompt_dim = prompt_dim
        self.decoder_multimask_outputs = decoder_multimask_outputs
        self.text_loss_weight = text_loss_weight
        self.bce_loss_weight = bce_loss_weight
        self.dice_loss_weight = dice_loss_weight
        self.fit_loss_weight = fit_loss_weight
        self.loss_side = loss_side
        self.logit_offset = logit_offset
        self.calibration = calibration
        self.min_presence = min_presence
        self.name_trust = name_trust
        self.name_doubt = name_doubt
        self.stranger_margin = stranger_margin
        self.vote_threshold = vote_threshold
        self.shot_aggregation = shot_aggregation
        super().__init__(**kwargs)

    @classmethod
    def paper(cls) -> "DSVLFSConfig":
        """The paper's model: SAM ViT-H and LLaVA-1.5-7B (arXiv 2503.04006, section 4.1)."""
        return cls()

    @classmethod
    def base(cls) -> "DSVLFSConfig":
        """One graphics card's model, trained the paper's way: SAM ViT-B and a LLaVA of half a billion parameters. The
        embeddings of the added token alone are trained, for those of its large vocabulary would take a third of the
        card."""
        return cls(
            image_base="facebook/sam-vit-base",
            image_config=sam_vit_base().to_dict(),
            vlm_base="llava-hf/llava-interleave-qwen-0.5b-hf",
            vlm_config=llava_half_b().to_dict(),
            vlm_image_size=384,
            vlm_mean=[0.5] * 3,
            vlm_std=[0.5] * 3,
            vlm_crop=False,
            train_token_embeddings="added",
            # As the base's own chat template has it.
            prompt_template="<|im_start|>user {image}\n{description}Where in this photo is the {class_name}?<|im_end|>"
            "<|im_start|>assistant\n",
            answer_template=f"It is {SEMANTIC_TOKEN}.",
            correlation_layers=[f"image.{n}" for n in range(1, 13)],
        )

    @classmethod
    def tiny(cls) -> "DSVLFSConfig":
        """The laptop's model: DINOv2 ViT-S/14, EfficientNet-Lite2 and SmolLM2-135M."""
        return cls(
            image_base="dinov2-small-focus",
            image_config=dinov2_small_config().to_dict(),
            image_size=448,
            pad_to_square=False,
            image_resample="bicubic",
            vlm_base=None,
            vision_base="efficientnet-lite2",
            language_base="smollm2-135m-instruct-q4",
            vlm_config=tiny_llava().to_dict(),
            vlm_image_size=448,
            vlm_mean=[127 / 255] * 3,
            vlm_std=[128 / 255] * 3,
            vlm_crop=False,
            train_vlm_projector=True,
            train_token_embeddings="added",
            standardise_state=True,
            unknown_word=0.25,
            # The class comes before the photo: what the language model makes of it does not depend on the photo.
            prompt_template="Class: {class_name}. {description}Photo: {image} Where is the {class_name}?",
            long_descriptions=False,
            correlation_layers=["image.9", "image.10", "vision.4", "vision.5", "vision.6"],
            embedding_layers=["image.9", "image.12", "vision.5", "vision.6"],
            grounding_layers=["vision.5", "vision.6"],
            support_size=336,
            support_context=1.6,
            support_grid=12,
            match_channels=(16, 32, 64),
            match_background=True,
            match_priors=True,
            prompt_dim=128,
            decoder_multimask_outputs=0,
        )

    @property
    def frozen_layers(self) -> list[str]:
        """Every layer that some part reads, once each."""
        return list(
            dict.fromkeys(
                [
                    *self.correlation_layers,
                    *(self.embedding_layers or []),
                    *(self.grounding_layers or []),
                    *(self.detail_layers or []),
                ]
            )
        )

    def image_encoder_config(self) -> PreTrainedConfig:
        """The image encoder's architecture as transformers' config."""
        return AutoConfig.for_model(**self.image_config)

    def llava_config(self) -> LlavaConfig:
        """The LLaVA's architecture as transformers' config."""
        return LlavaConfig(**{k: v for k, v in self.vlm_config.items() if k != "model_type"})


AutoConfig.register(DSVLFSConfig.model_type, DSVLFSConfig, exist_ok=True)
