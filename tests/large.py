"""Models of real size, with and without their weights, from `transformers` configurations."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.families import First

os.environ["HF_HUB_OFFLINE"] = "1"

Built = tuple[nn.Module, tuple[Tensor, ...]]


def _images(model: nn.Module) -> Built:
    return First(model, ("pixel_values",)).eval(), (torch.zeros(1, 3, 224, 224),)


def _tokens(model: nn.Module) -> Built:
    return First(model, ("input_ids",)).eval(), (torch.zeros(1, 8, dtype=torch.long),)


def resnet50() -> Built:
    """ResNet-50, 25.6M parameters."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return _images(ResNetForImageClassification(ResNetConfig(num_labels=1000)))


def vit_b16() -> Built:
    """ViT-B/16, 86.6M parameters."""
    from transformers import ViTConfig, ViTForImageClassification

    return _images(ViTForImageClassification(ViTConfig(num_labels=1000)))


def bert_22m() -> Built:
    """BERT of MiniLM's shape, 22.7M parameters."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    return _tokens(BertModel(config))


def llama_1b(layers: int = 16) -> Built:
    """Llama-3.2-1B's shape, 1,236M parameters with 16 layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=8192,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return _tokens(LlamaForCausalLM(config))


def gpt2() -> Built:
    """GPT-2, 124M parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return _tokens(GPT2LMHeadModel(GPT2Config(use_cache=False)))


def gpt2_xl(layers: int = 48) -> Built:
    """GPT-2 XL, 1,558M parameters with 48 layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=1600, n_layer=layers, n_head=25, use_cache=False)
    return _tokens(GPT2LMHeadModel(config))


CHECKPOINTS: dict[str, Callable[[], Built]] = {
    "resnet-50": resnet50,
    "vit-b/16": vit_b16,
    "bert-22m": bert_22m,
}


def on_meta(build: Callable[[], Built]) -> Built:
    """The model without its weights, and its inputs."""
    with torch.device("meta"):
        return build()
