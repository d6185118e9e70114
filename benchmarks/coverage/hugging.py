"""Every model type of `transformers`, small, with random weights and inputs it accepts."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.examples import (
    Factory,
    Model,
    callable_model,
    combined,
    numbers,
    ones,
    tokens,
    with_images,
)
from benchmarks.coverage.shrink import configurations
from tests.torchvision_operators import declare_operators

os.environ["HF_HUB_OFFLINE"] = "1"
LARGEST = 30_000_000  # parameters


class NotSmallError(Exception):
    """No configuration of this type was both accepted and small."""


def names() -> list[str]:
    """Model types that have a class without a head, then those that have only others."""
    from transformers.models.auto import modeling_auto as auto

    listed = dict.fromkeys(auto.MODEL_MAPPING_NAMES)
    for mapping in vars(auto).copy():
        if mapping.endswith("_MAPPING_NAMES") and mapping != "CONFIG_MAPPING_NAMES":
            listed |= dict.fromkeys(getattr(auto, mapping))
    return list(listed)


def build(name: str) -> Model:
    """A small model of a type.

    Raises:
        NotSmallError: if no small configuration builds; with the reason of the first.
        NoInputError: if no inputs are found for it.
    """
    declare_operators()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    reasons = []
    for config in configurations(CONFIG_MAPPING[name]):
        try:
            with torch.device("meta"):
                size = sum(each.numel() for each in _create(name, config).parameters())
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}")
            continue
        if size <= LARGEST:
            torch.manual_seed(0)
            model = _create(name, config).float().eval()
            return callable_model(model, _choices(model, config))
        reasons.append(f"{size:,} parameters")
    raise NotSmallError(" ".join((reasons or ["its class refuses the values"])[0].split())[:300])


def _create(name: str, config: Any) -> nn.Module:
    from transformers.models.auto import modeling_auto as auto

    if name in auto.MODEL_MAPPING_NAMES:
        base: Any = auto.AutoModel
        made: nn.Module = base.from_config(config)
        return made
    for mapping in vars(auto).copy():
        if mapping.startswith("MODEL_FOR") and mapping.endswith("_MAPPING"):
            kinds = getattr(auto, mapping)
            if type(config) in kinds:
                kind = kinds[type(config)]
                return (kind[0] if isinstance(kind, tuple) else kind)(config)  # type: ignore[no-any-return]
    raise NotSmallError("no class")


def _choices(model: Any, config: Any) -> Iterator[dict[str, Factory]]:
    """Named inputs to try, best first."""
    accepted = inspect.signature(model.forward).parameters
    required = [
        each.name
        for each in accepted.values()
        if each.default is each.empty and each.kind == each.POSITIONAL_OR_KEYWORD
    ]
    main = model.main_input_name
    base = [main] if main in accepted else []
    base = list(dict.fromkeys(base + required))
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        base.append("decoder_input_ids")
    if "input_ids" in base and "pixel_values" in accepted and "pixel_values" not in base:
        both = [*base, "pixel_values"]
        yield from combined({name: _factories(name, config, True)[:3] for name in both})
    yield from combined({name: _factories(name, config) for name in base})
    if "decoder_input_ids" in accepted and "decoder_input_ids" not in base:
        named = [*base, "decoder_input_ids"]
        yield from combined({name: _factories(name, config) for name in named})
    for name in ("attention_mask", "bbox", "input_features"):
        if name in accepted and name not in base:
            yield from combined({each: _factories(each, config) for each in [*base, name]})


def _factories(name: str, config: Any, images: bool = False) -> list[Factory]:
    """Candidates for an input, by its name."""
    if name in ("input_ids", "decoder_input_ids", "text_input_ids"):
        return [*_texts(config, images and name == "input_ids"), *_codes(config)]
    if name.startswith("pixel_values") or name in ("images", "image"):
        return [numbers(*shape) for shape in _image_shapes(config)]
    if name in ("input_features", "input_values", "audio_values", "audio", "waveform"):
        return [numbers(*shape) for shape in _sound_shapes(name, config)]
    if name in ("inputs_embeds", "hidden_states", "encoder_hidden_states", "inputs"):
        width = _find(config, ("hidden_size", "d_model", "embed_dim", "d_latents"), 32)
        return [numbers(2, 7, width), numbers(7, width), numbers(2, width, 7)]
    if name in ("past_values", "past_time_features", "past_observed_mask"):
        return _series(name, config)
    if name in ("attention_mask", "pixel_mask"):
        return [lambda _: torch.ones(2, 7, dtype=torch.long)]
    if name == "bbox":
        return [tokens(2, 7, 4), numbers(2, 7, 4)]
    return []


def _texts(config: Any, images: bool) -> list[Factory]:
    token = next(
        (
            int(value)
            for name in ("image_token_id", "image_token_index", "media_token_id")
            if isinstance(value := getattr(config, name, None), int)
        ),
        None,
    )
    if not images or token is None:
        return [tokens(2, 7)]
    side = _find(config, ("image_size",), 32)
    parts = (side // max(_find(config, ("patch_size",), 8), 1)) ** 2
    sizes = dict.fromkeys([parts, parts // 4, parts + 1, 1, 4, 6])
    return [with_images(token, count) for count in sizes if count]


def _codes(config: Any) -> list[Factory]:
    """Tokens in several streams, as models of sound read them."""
    streams = _find(config, ("num_codebooks", "num_vq", "n_codebooks", "num_channels"), 1)
    return [tokens(2, 7, streams), tokens(2, 7, streams + 1)]


def _image_shapes(config: Any) -> list[tuple[int, ...]]:
    channels = _find(config, ("num_channels", "in_channels", "in_chans"), 3)
    side = _find(config, ("image_size", "img_size", "input_size"), 32)
    frames = _find(config, ("num_frames", "frames_per_clip"), 2)
    sides = list(dict.fromkeys([side, 32, 64, 128]))
    flat: list[tuple[int, ...]] = [(2, channels, each, each) for each in sides]
    clips: list[tuple[int, ...]] = [(2, frames, channels, each, each) for each in sides]
    return flat[:1] + clips[:1] + flat[1:] + clips[1:] + [(1, 2, channels, side, side)]


def _sound_shapes(name: str, config: Any) -> list[tuple[int, ...]]:
    mel = _find(config, ("num_mel_bins", "feature_size", "n_mels", "input_dim"), 80)
    length = 2 * _find(config, ("max_source_positions",), 64)
    features = [(2, mel, length), (2, length, mel), (2, 1, length, mel), (2, 64, mel)]
    waves = [(2, 2000), (2, 1, 2000), (2, 1, 4096), (2, 16000)]
    longest = _find(config, ("max_length",), 128)
    features += [(2, longest, mel), (2, 1, mel, length)]
    return features + waves if name == "input_features" else waves + features


def _series(name: str, config: Any) -> list[Factory]:
    lags = getattr(config, "lags_sequence", None) or [0]
    length = _find(config, ("context_length",), 16) + max(lags)
    size = _find(config, ("input_size", "num_input_channels"), 1)
    if name == "past_time_features":
        return [numbers(2, length, getattr(config, "num_time_features", 0))]
    make = ones if name == "past_observed_mask" else numbers
    return [make(2, length), make(2, length, size)]


def _find(config: Any, fields: tuple[str, ...], default: int) -> int:
    """The first of the fields that the configuration or a part of it has, as one number."""
    parts = [config, *(getattr(config, each, None) for each in _part_names(config))]
    for field in fields:
        for part in parts:
            value = getattr(part, field, None)
            if isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return default


def _part_names(config: Any) -> list[str]:
    order = ("vision_config", "image_model_config", "audio_config", "encoder")
    return sorted(
        getattr(type(config), "sub_configs", None) or {},
        key=lambda name: order.index(name) if name in order else len(order),
    )
