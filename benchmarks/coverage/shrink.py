"""Small configurations of every model type that `transformers` knows, by the names of fields.

A configuration is built from its own defaults: widths, depths, heads, vocabularies and images are
made small by what their fields are called. All widths become the same number, so parts that must
fit still do. Where a type does not accept that, less is shrunk.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

WIDTH, INNER, HEADS, HEAD, VOCABULARY, POSITIONS = 32, 48, 4, 8, 96, 64
FIRST_SPECIAL = 80  # tokens from here on are special ones; examples have none of them

Shrinker = Callable[[int], int]

# What some types need beside, by model type.
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
_SHIFTED = {"window_size": 2, "patch_size": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "autoformer": {"prediction_length": 4},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "donut-swin": _SHIFTED,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    "esm": {"vocab_size": 60, "mask_token_id": 4},
    "glm4v_text": {"rope_parameters": {**_ROTARY, "mrope_section": [2, 1, 1]}},
    "glm_image_text": {"rope_parameters": {**_ROTARY, "mrope_section": [2, 1, 1]}},
    "glm_ocr_text": {"rope_parameters": {**_ROTARY, "mrope_section": [2, 1, 1]}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "informer": {"prediction_length": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "led": {"attention_window": 8},
    "lilt": {"hidden_size": 24, "num_attention_heads": 2},
    "mamba2": {"head_dim": 16},
    "maskformer-swin": _SHIFTED,
    "qwen2_5_vl_text": {"rope_parameters": {**_ROTARY, "mrope_section": [2, 1, 1]}},
    "qwen2_vl_text": {"rope_parameters": {**_ROTARY, "mrope_section": [2, 1, 1]}},
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 8)},
    "swin": _SHIFTED,
    "swinv2": _SHIFTED,
    "time_series_transformer": {"prediction_length": 4},
}


def _at_most(limit: int) -> Shrinker:
    return lambda value: min(value, limit)


def _special(value: int) -> int:
    return value if value < 3 else FIRST_SPECIAL + value % (VOCABULARY - FIRST_SPECIAL)


# The first pattern that is found in the name of a field counts.
PATTERNS: tuple[tuple[str, Shrinker], ...] = (
    (r"(_token_id|_token_index|_token_ids|_id)$", _special),
    (r"(loss|cost|dropout|rate|ratio|eps|std|temperature|threshold|weight|gamma|scale)", int),
    (r"(kernel|stride|dilation|padding|window|sampling|hop_length|feature_layer|fft)", int),
    (r"^(num_channels|in_channels|in_chans|num_mel_bins|feature_size|audio_channels)$", int),
    (r"(type_vocab|num_labels)", int),
    (r"codebook_size", _at_most(64)),
    (r"(vocab|num_embeddings)", _at_most(VOCABULARY)),
    (r"(position_embeddings|positions|context_length)$", _at_most(POSITIONS)),
    (r"(image_size|input_size|img_size)", _at_most(32)),
    (r"(patch_size|spatial_patch)", _at_most(8)),
    (r"(num_frames|temporal_size)", _at_most(4)),
    (r"(num_experts_per_tok|moe_topk|top_k|num_experts_per_token|moe_k|experts_top)", _at_most(2)),
    (r"(expert|moe).*(size|dim)", _at_most(INNER)),
    (r"(^n_group$|topk_group|num_expert_group|n_groups)", _at_most(1)),
    (r"shared_experts", _at_most(1)),
    (r"experts", _at_most(4)),
    (r"(mamba|ssm|linear).*num.*heads|mamba_n_heads|num_v_heads|num_k_heads", _at_most(4)),
    (r"(key_value_heads|kv_heads|n_head_kv)", _at_most(2)),
    (r"(attention_heads|num_heads|n_head|heads|nhead)", _at_most(HEADS)),
    (r"(qk_rope_head_dim|rotary_dim|qk_nope_head_dim|v_head_dim|head_dim|^d_kv$)", _at_most(HEAD)),
    (r"(first_k_dense|num_mtp|nextn)", _at_most(1)),
    (r"(num_hidden_layers|layers|n_layer|depth|num_blocks|layers_block|num_stacks)", _at_most(2)),
    (
        r"(intermediate|ffn|inner_dim|d_ff|mlp_dim|n_inner|hidden_dim_ff|feedforward)",
        _at_most(INNER),
    ),
    (r"(queries|query_tokens|num_latents|num_query)", _at_most(6)),
    (r"(lora_rank|_rank)$", _at_most(16)),
    (r"(d_state|state_size|ssm_state|time_step_rank)", _at_most(8)),
    (r"(groups|conv_pos_embeddings)", _at_most(4)),
    (
        r"(hidden|d_model|embed|width|dim|channels|filters|size|features|n_embd|_proj)",
        _at_most(WIDTH),
    ),
)
DEPTHS = re.compile(r"(depths|layers|blocks|num_block|stage.*repeats|repeats)")
WIDTHS = re.compile(r"(hidden|embed|width|dims?$|channels|sizes$|filters|conv_dim)")
KEPT = re.compile(
    r"(kernel|stride|patch|padding|indices|index|window|ratio|dilation|mean|std|pool)"
)


def configurations(kind: type[Any]) -> Iterator[Any]:
    """Smaller and smaller changes to the defaults of a configuration class, best first.

    Args:
        kind: a configuration class of transformers.

    Yields:
        Configurations; those that the class refuses are left out.
    """
    for lists in (True, False):
        try:
            yield _finish(kind(**_fields(kind, lists)))
        except Exception:
            continue


def _fields(kind: type[Any], lists: bool) -> dict[str, Any]:
    """Keyword arguments of a configuration class whose defaults are to be smaller."""
    parts = getattr(kind, "sub_configs", None) or {}
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in parts:
            part = _part(kind, field.name, parts[field.name])
            if part is not None:
                named = {"model_type": part.model_type} if part is not parts[field.name] else {}
                changed[field.name] = named | _fields(part, lists)
            continue
        value = _default(field)
        small = _small(field.name, value, lists)
        if small is not value and small != value:
            changed[field.name] = small
    if _same(kind, "num_key_value_heads", "num_attention_heads"):
        changed["num_key_value_heads"] = changed.get("num_attention_heads", HEADS)
    return changed | SETTINGS.get(getattr(kind, "model_type", ""), {})


def _same(kind: type[Any], *names: str) -> bool:
    """Whether the class has all of these fields, with one number in common."""
    found = {each.name: _default(each) for each in dataclasses.fields(kind)}
    values = [found.get(name) for name in names]
    return isinstance(values[0], int) and all(value == values[0] for value in values)


def _part(kind: type[Any], name: str, declared: type[Any]) -> type[Any] | None:
    """The class of a part; where any will do, that of the part in the defaults, if there is one."""
    if dataclasses.is_dataclass(declared):
        return declared
    try:
        part: Any = type(getattr(kind(), name, None))
    except Exception:  # some classes have no complete defaults
        return None
    kind_of_part = getattr(part, "model_type", "timm_backbone")
    return part if kind_of_part != "timm_backbone" else None


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None


def _small(name: str, value: object, lists: bool) -> object:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return _number(name, value)
    if isinstance(value, (list, tuple)) and all(type(each) is int for each in value):
        return type(value)(_numbers(name, list(value))) if lists else value
    return value


def _number(name: str, value: int) -> int:
    for pattern, shrink in PATTERNS:
        if re.search(pattern, name):
            return shrink(value)
    return value


def _numbers(name: str, values: list[int]) -> list[int]:
    """A list with one number per stage: depths stay short, widths keep their order."""
    if name.endswith(("image_size", "img_size", "input_size")):
        return [min(value, 32) for value in values]
    if name.endswith("patch_size"):
        return [min(value, 8) for value in values]
    if KEPT.search(name):
        return values
    if "heads" in name:
        return [min(value, 2) for value in values]
    if DEPTHS.search(name):
        return [min(value, 2) for value in values]
    if WIDTHS.search(name) and max(values, default=0) > WIDTH:
        ranks = sorted({value for value in values if value > 4})  # fewer are colours
        return [16 * (1 + ranks.index(value)) if value > 4 else value for value in values]
    return values


def _finish(config: Any) -> Any:
    """What a text has been so far is no output; experts are written with known operations."""
    for part in (config, *_parts(config)):
        if hasattr(part, "use_cache"):
            part.use_cache = False
        part._experts_implementation = "batched_mm"
    return config


def _parts(config: Any) -> Iterator[Any]:
    for name in getattr(type(config), "sub_configs", None) or {}:
        part = getattr(config, name, None)
        if part is not None and hasattr(part, "to_dict"):
            yield part
            yield from _parts(part)
