"""Networks of `torchvision` and `timm` with random weights, and example inputs.

The smallest variants and images that are valid; where a library lets widths and depths be chosen,
small ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.families import shaken

Shape = tuple[int, ...]
TINY, SMALL, CLIP = (2, 3, 32, 32), (2, 3, 64, 64), (1, 3, 4, 32, 32)


def _mvit(models: Any) -> nn.Module:
    block = models.video.mvit.MSBlockConfig
    plain, pool = {"kernel_q": [], "stride_q": []}, {"kernel_q": [3, 3, 3], "stride_q": [1, 2, 2]}
    keys = {"kernel_kv": [3, 3, 3], "stride_kv": [1, 2, 2]}
    blocks = [
        block(num_heads=1, input_channels=16, output_channels=16, **plain, **keys),
        block(num_heads=2, input_channels=16, output_channels=32, **pool, **keys),
        block(num_heads=2, input_channels=32, output_channels=32, **plain, **keys),
    ]
    return models.video.MViT((32, 32), 4, blocks, True, False, True, True, num_classes=5)


def _swin_v2(models: Any) -> nn.Module:
    swin = models.swin_transformer
    return models.SwinTransformer(
        *([4, 4], 16, [2, 2, 2, 2], [2, 2, 4, 4], [4, 4]),
        num_classes=5,
        block=swin.SwinTransformerBlockV2,
        downsample_layer=swin.PatchMergingV2,
    )


# What builds the network, given `torchvision.models`, and the shapes of its inputs.
TORCHVISION: dict[str, tuple[Callable[[Any], nn.Module], tuple[Shape, ...]]] = {
    "alexnet": (lambda m: m.alexnet(num_classes=5), (SMALL,)),
    "convnext": (
        lambda m: m.ConvNeXt(
            [m.convnext.CNBlockConfig(16, 32, 2), m.convnext.CNBlockConfig(32, None, 2)],
            num_classes=5,
        ),
        (SMALL,),
    ),
    "deeplabv3_mobilenet_v3_large": (
        lambda m: m.segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None, num_classes=5),
        (SMALL,),
    ),
    "densenet": (lambda m: m.DenseNet(8, (2, 3, 4, 2), 16, num_classes=5), (TINY,)),
    "efficientnet_b0": (lambda m: m.efficientnet_b0(num_classes=5), (TINY,)),
    "efficientnet_v2_s": (lambda m: m.efficientnet_v2_s(num_classes=5), (TINY,)),
    "fcn_resnet50": (
        lambda m: m.segmentation.fcn_resnet50(weights_backbone=None, num_classes=5),
        (TINY,),
    ),
    "googlenet": (lambda m: m.GoogLeNet(5, aux_logits=False, init_weights=False), (SMALL,)),
    "inception_v3": (
        lambda m: m.Inception3(5, aux_logits=False, init_weights=False),
        ((2, 3, 75, 75),),
    ),
    "lraspp_mobilenet_v3_large": (
        lambda m: m.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5),
        (SMALL,),
    ),
    "maxvit": (
        lambda m: m.MaxVit((64, 64), 16, 2, [16, 32], [1, 2], 8, 0.0, num_classes=5),
        (SMALL,),
    ),
    "mc3_18": (lambda m: m.video.mc3_18(num_classes=5), (CLIP,)),
    "mnasnet0_5": (lambda m: m.mnasnet0_5(num_classes=5), (TINY,)),
    "mobilenet_v2": (lambda m: m.mobilenet_v2(num_classes=5), (TINY,)),
    "mobilenet_v3_small": (lambda m: m.mobilenet_v3_small(num_classes=5), (TINY,)),
    "mvit": (_mvit, (CLIP,)),
    "r2plus1d_18": (lambda m: m.video.r2plus1d_18(num_classes=5), (CLIP,)),
    "r3d_18": (lambda m: m.video.r3d_18(num_classes=5), (CLIP,)),
    "raft_small": (
        lambda m: _Updates(m.optical_flow.raft_small()),
        ((1, 3, 128, 128), (1, 3, 128, 128)),
    ),
    "regnet_x_400mf": (lambda m: m.regnet_x_400mf(num_classes=5), (TINY,)),
    "regnet_y_400mf": (lambda m: m.regnet_y_400mf(num_classes=5), (TINY,)),
    "resnet18": (lambda m: m.resnet18(num_classes=5), (TINY,)),
    "resnet50": (lambda m: m.resnet50(num_classes=5), (TINY,)),
    "resnext50_32x4d": (lambda m: m.resnext50_32x4d(num_classes=5), (TINY,)),
    "shufflenet_v2_x0_5": (lambda m: m.shufflenet_v2_x0_5(num_classes=5), (TINY,)),
    "squeezenet1_1": (lambda m: m.squeezenet1_1(num_classes=5), (SMALL,)),
    "swin": (
        lambda m: m.SwinTransformer(
            [4, 4], 16, [2, 2, 2, 2], [2, 2, 4, 4], [3, 3], num_classes=5
        ),
        (SMALL,),
    ),
    "swin3d": (
        lambda m: m.video.SwinTransformer3d(
            [2, 4, 4], 16, [2, 2], [2, 4], [2, 3, 3], num_classes=5
        ),
        (CLIP,),
    ),
    "swin_v2": (_swin_v2, (SMALL,)),
    "vgg11_bn": (lambda m: m.vgg11_bn(num_classes=5, init_weights=False), (TINY,)),
    "vit": (lambda m: m.VisionTransformer(32, 16, 2, 4, 32, 48, num_classes=5), (TINY,)),
    "wide_resnet50_2": (lambda m: m.wide_resnet50_2(num_classes=5), (TINY,)),
}  # fmt: skip


class _Updates(nn.Module):
    """Optical flow after two updates instead of twelve."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        return self.model(first, second, num_flow_updates=2)


# Side of the images, and settings other than the number of classes.
_SLIM = {"img_size": 32, "depth": 2, "embed_dim": 48}
_STAGES = {"embed_dims": (16, 32, 32, 32), "num_heads": (2, 2, 4, 4)}
TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "beit_base_patch16_224": (32, {**_SLIM, "num_heads": 4}),
    "cait_xxs24_224": (32, _SLIM),
    "coat_tiny": (
        64,
        {
            "img_size": 64,
            "embed_dims": [32] * 4,
            "serial_depths": [1] * 4,
            "num_heads": 8,
            "parallel_depth": 1,
        },
    ),
    "coatnet_pico_rw_224": (64, {"img_size": 64}),
    "convit_tiny": (32, {**_SLIM, "depth": 3, "num_heads": 4, "local_up_to_layer": 2}),
    "convmixer_768_32": (28, {}),
    "crossvit_tiny_240": (240, {"depth": [[1, 2, 0], [1, 2, 0]]}),
    "convnextv2_atto": (32, {}),
    "cs3darknet_focus_s": (32, {}),
    "cspresnet50": (32, {}),
    "davit_tiny": (
        64,
        {"depths": (1,) * 4, "embed_dims": (16, 32, 32, 32), "num_heads": (2,) * 4},
    ),
    "deit3_small_patch16_224": (32, _SLIM),
    "deit_tiny_distilled_patch16_224": (32, _SLIM),
    "dla46_c": (32, {}),
    "dpn48b": (32, {}),
    "edgenext_xx_small": (32, {}),
    "efficientformer_l1": (224, {}),
    "efficientformerv2_s0": (224, {}),
    "ese_vovnet19b_slim_dw": (32, {}),
    "eva02_tiny_patch14_224": (28, {**_SLIM, "img_size": 28}),
    "eva_giant_patch14_224": (28, {**_SLIM, "img_size": 28, "num_heads": 4}),
    "fastvit_t8": (64, {}),
    "focalnet_tiny_srf": (64, {}),
    "ghostnet_050": (32, {}),
    "ghostnetv2_100": (64, {}),
    "gmlp_s16_224": (32, {"img_size": 32}),
    "halonet26t": (256, {}),
    "hiera_tiny_224": (64, {"img_size": (64, 64), "stages": (1, 1, 2, 1), "embed_dim": 16}),
    "hrnet_w18_small": (32, {}),
    "inception_next_atto": (64, {}),
    "lambda_resnet26t": (64, {}),
    "levit_128s": (64, {"img_size": 64}),
    "mambaout_femto": (32, {"depths": (1, 1, 1, 1)}),
    "maxvit_rmlp_pico_rw_256": (64, {"img_size": 64}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "mobilenetv4_conv_small": (32, {}),
    "mobileone_s0": (32, {}),
    "mobilevit_xxs": (64, {}),
    "mobilevitv2_050": (64, {}),
    "nest_tiny": (64, {"img_size": 64}),
    "nextvit_small": (64, {}),
    "nf_resnet26": (32, {}),
    "nfnet_l0": (32, {}),
    "pit_ti_224": (64, {"img_size": 64, "stride": 8, "base_dims": [8] * 3, "depth": [1] * 3}),
    "poolformer_s12": (32, {}),
    "pvt_v2_b0": (64, {}),
    "repvgg_a0": (32, {}),
    "repvit_m0_9": (32, {}),
    "res2net50_26w_4s": (32, {}),
    "resmlp_12_224": (32, {"img_size": 32}),
    "resnest14d": (32, {}),
    "rexnet_100": (32, {}),
    "selecsls42": (32, {}),
    "sequencer2d_s": (
        64,
        {
            "img_size": 64,
            "layers": (1,) * 4,
            "embed_dims": (16, 32, 32, 32),
            "hidden_sizes": (4, 8, 8, 8),
        },
    ),
    "skresnet18": (32, {}),
    "starnet_s1": (64, {}),
    "swiftformer_xs": (64, {}),
    "tiny_vit_5m_224": (
        64,
        {
            "embed_dims": (16, 32, 32, 32),
            "depths": (1,) * 4,
            "num_heads": (2,) * 4,
            "window_sizes": (4,) * 4,
        },
    ),
    "tnt_s_patch16_224": (32, {"img_size": 32, "depth": 2}),
    "tresnet_m": (32, {}),
    "twins_pcpvt_small": (64, {"img_size": 64, "depths": [1] * 4, **_STAGES}),
    "twins_svt_small": (64, {"img_size": 64, "depths": [2] * 4, **_STAGES}),
    "visformer_tiny": (64, {"img_size": 64}),
    "vit_relpos_small_patch16_224": (32, {**_SLIM, "num_heads": 4}),
    "volo_d1_224": (64, {"img_size": 64}),
    "xcit_nano_12_p16_224": (32, _SLIM),
}


def build(library: str, name: str, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network with every weight away from its special values, and example inputs.

    Args:
        library: ``"torchvision"`` or ``"timm"``.
        name: one of the names above.
        seed: of the weights and inputs.
    """
    torch.manual_seed(seed)
    if library == "torchvision":
        import torchvision

        make, shapes = TORCHVISION[name]
        model = make(torchvision.models)
    else:
        import timm

        side, settings = TIMM[name]
        model, shapes = timm.create_model(name, num_classes=5, **settings), ((2, 3, side, side),)
    inputs = tuple(torch.randn(shape) for shape in shapes)
    return measured(shaken(model), inputs), inputs


def measured(model: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    """The model with batch statistics near those of the inputs.

    Without, signals fade in deep networks until outputs depend on the last biases only, and no
    wrong symmetry could be told from a right one.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_measure) for norm in norms]
    # Some models keep what they compute on the way; a copy that shares the tensors keeps it apart.
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    with torch.no_grad():
        copy.deepcopy(model, tensors)(*inputs)
    for hook in hooks:
        hook.remove()
    return model


def _measure(norm: nn.Module, values: tuple[Tensor]) -> None:
    norm.running_mean.add_(values[0].mean())
    norm.running_var.mul_(values[0].var())


BUILDERS = {library: partial(build, library) for library in ("torchvision", "timm")}
