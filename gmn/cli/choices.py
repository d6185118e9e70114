"""Names that help texts list, kept here so that ``--help`` imports nothing heavy."""

from __future__ import annotations

ACTIVATIONS = ("relu", "tanh", "gelu", "silu", "elu", "leaky-relu", "sigmoid", "sine")
POPULATIONS = (
    *("cnn-mnist", "cnn-digits", "cnn-wild-mnist", "cnn-wild-digits"),
    *("mlp-mnist", "mlp-digits", "cnn-training-mnist", "cnn-training-digits"),
    *("cnn-backdoor-mnist", "cnn-backdoor-digits", "inr-mnist", "transformer-mnist"),
    *("transformer-digits", "inr-fashion", "inr-digits", "tickets-mnist"),
    *("tickets-digits",),
)
LAYOUTS = (
    *("small-cnn-zoo", "dws-inrs", "nfn-sirens", "small-transformer-zoo"),
    *("model-zoos", "cnn-wild-park", "neural-field-arena", "folder"),
)
FORMATS = ("safetensors", "pt")
