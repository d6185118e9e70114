"""Small random networks of many `transformers` families, with example inputs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"

TEXT = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
GROUPED = {**TEXT, "num_key_value_heads": 2, "use_cache": False}
SEQ2SEQ = {
    "vocab_size": 60,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "use_cache": False,
}
PATCHES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
GPT = {"vocab_size": 60, "use_cache": False}


class First(nn.Module):
    """Calls a model with named inputs and returns the first of its outputs."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, values, strict=True)), return_dict=False)[0]


def _ids() -> Tensor:
    return torch.randint(3, 50, (2, 7))


def _pixels(side: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, 3, side, side)


# Name of the model class, that of its configuration, its arguments, and its inputs.
Family = tuple[str, str, dict[str, Any], dict[str, Callable[[], Tensor]]]
IDS: dict[str, Callable[[], Tensor]] = {"input_ids": _ids}

FAMILIES: dict[str, Family] = {
    "albert": ("AlbertModel", "AlbertConfig", {**TEXT, "embedding_size": 8}, IDS),
    "bart": ("BartModel", "BartConfig", {**SEQ2SEQ, "max_position_embeddings": 32}, IDS),
    "bert": ("BertModel", "BertConfig", TEXT, IDS),
    "bert-classifier": ("BertForSequenceClassification", "BertConfig", TEXT, IDS),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {**GPT, "hidden_size": 16, "n_layer": 2, "n_head": 4},
        IDS,
    ),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"text_config": TEXT, "vision_config": PATCHES, "projection_dim": 12},
        {"input_ids": _ids, "pixel_values": _pixels(8)},
    ),
    "convnext": (
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        {"pixel_values": _pixels(32)},
    ),
    "deberta-v2": (
        "DebertaV2Model",
        "DebertaV2Config",
        {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
        IDS,
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24},
        IDS,
    ),
    "electra": ("ElectraModel", "ElectraConfig", {**TEXT, "embedding_size": 16}, IDS),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, "head_dim": 4}, IDS),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {**GPT, "n_embd": 16, "n_layer": 2, "n_head": 4},
        IDS,
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**TEXT, "use_cache": False}, IDS),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED, IDS),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {**GPT, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
        IDS,
    ),
    "mistral": ("MistralForCausalLM", "MistralConfig", GROUPED, IDS),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 3, "experts_implementation": "batched_mm"},
        IDS,
    ),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**TEXT, "ffn_dim": 24, "word_embed_proj_dim": 16, "use_cache": False},
        IDS,
    ),
    "phi": ("PhiForCausalLM", "PhiConfig", {**TEXT, "use_cache": False}, IDS),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED, IDS),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 4}, IDS),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]},
        {"pixel_values": _pixels(32)},
    ),
    "roberta": ("RobertaModel", "RobertaConfig", TEXT, IDS),
    "swin": (
        "SwinModel",
        "SwinConfig",
        {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        },
        {"pixel_values": _pixels(16)},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, "use_cache": False},
        {**IDS, "decoder_input_ids": _ids},
    ),
    "t5-encoder": ("T5EncoderModel", "T5Config", T5, IDS),
    "vit": ("ViTForImageClassification", "ViTConfig", PATCHES, {"pixel_values": _pixels(8)}),
    "whisper": (
        "WhisperModel",
        "WhisperConfig",
        {
            **SEQ2SEQ,
            "num_mel_bins": 8,
            "max_source_positions": 10,
            "max_target_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        {"input_features": lambda: torch.randn(2, 8, 20), "decoder_input_ids": _ids},
    ),
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A family's model with every weight away from its special values, and example inputs."""
    import transformers

    model_class, config_class, settings, inputs = FAMILIES[name]
    torch.manual_seed(seed)
    settings = dict(settings)
    experts = settings.pop("experts_implementation", None)
    config = getattr(transformers, config_class)(**settings)
    if experts is not None:
        config._experts_implementation = experts
    model = First(getattr(transformers, model_class)(config), tuple(inputs))
    return shaken(model), tuple(make() for make in inputs.values())


def shaken(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, its weights and statistics away from their first values."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.mul_(1 + 0.5 * torch.rand_like(buffer))
    return model.eval()
