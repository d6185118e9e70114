"""Networks of `torchvision` and `timm`, small ones, with random weights and images they accept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.examples import AllTensors, Model, NoInputError, numbers
from benchmarks.coverage.hugging import NotSmallError
from tests import vision
from tests.torchvision_operators import declare_operators

LARGEST = 30_000_000  # parameters
SIDES = (64, 96, 128, 224, 300)  # of images that are tried
PER_MODULE = 5  # networks of each of timm's modules
SMALL = re.compile(
    r"(tiny|nano|atto|femto|pico|mini|small|_xs|_xxs|_ti|_xxt|_t0|_s0|_050|_075|18|26|"
    r"14|_b0|_m1|test_|_s\b|_s_)"
)
SETTINGS: tuple[dict[str, Any], ...] = (
    {"img_size": 64, "depth": 2},
    {"img_size": 64},
    {"depth": 2},
    {},
)


def torchvision_names() -> list[str]:
    """Small variants, then everything that classifies or segments, then backbones of detectors."""
    declare_operators()
    from torchvision import models

    small = [f"small/{name}" for name in vision.TORCHVISION]
    listed = models.list_models(module=models)
    segmenting = [f"segmentation/{n}" for n in models.list_models(module=models.segmentation)]
    return [*small, *listed, *segmenting, *(f"backbone/{name}" for name in BACKBONES)]


def _resnet(name: str) -> nn.Module:
    from torchvision.models.detection import backbone_utils

    made: nn.Module = backbone_utils.resnet_fpn_backbone(backbone_name=name, weights=None)
    return made


def _mobile(fpn: bool) -> nn.Module:
    from torchvision.models.detection import backbone_utils

    made: nn.Module = backbone_utils.mobilenet_backbone(
        backbone_name="mobilenet_v3_large", weights=None, fpn=fpn
    )
    return made


def _detector(name: str) -> nn.Module:
    """The part of a detector before its proposals."""
    from torchvision.models import detection

    made: nn.Module = getattr(detection, name)(weights=None, weights_backbone=None).backbone
    return made


BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "resnet18_fpn": partial(_resnet, "resnet18"),
    "resnet50_fpn": partial(_resnet, "resnet50"),
    "mobilenet_v3_large": partial(_mobile, False),
    "mobilenet_v3_large_fpn": partial(_mobile, True),
    **{
        name: partial(_detector, name)
        for name in (
            "fasterrcnn_resnet50_fpn_v2",
            "fcos_resnet50_fpn",
            "maskrcnn_resnet50_fpn",
            "retinanet_resnet50_fpn",
            "ssd300_vgg16",
            "ssdlite320_mobilenet_v3_large",
        )
    },
}


def torchvision_model(name: str) -> Model:
    """A network of torchvision.

    Raises:
        NotSmallError: if it has more parameters than are measured here.
        NoInputError: if it accepts no image of the sizes tried.
    """
    declare_operators()
    from torchvision import models

    kind, _, rest = name.rpartition("/")
    if kind == "small":
        make, shapes = vision.TORCHVISION[rest]
        torch.manual_seed(0)
        module = AllTensors(make(models)).eval()
        return Model(module, tuple(numbers(*shape) for shape in shapes))
    if kind == "backbone":
        return _with_image(BACKBONES[rest])
    settings: dict[str, Any] = {"weights": None, "num_classes": 5}
    if kind == "segmentation":
        settings["weights_backbone"] = None
    elif rest in ("googlenet", "inception_v3"):
        settings |= {"aux_logits": False, "init_weights": False}
    return _with_image(partial(models.get_model, rest, **settings))


def timm_names() -> list[str]:
    """Networks that the tests build with small settings, then some of each module of timm."""
    declare_operators()
    import timm

    chosen = dict.fromkeys(vision.TIMM)
    for module in timm.list_modules():
        listed = timm.list_models(module=module)
        listed.sort(key=lambda name: (SMALL.search(name) is None, len(name), name))
        chosen |= dict.fromkeys(listed[:PER_MODULE])
    return list(chosen)


def timm_model(name: str) -> Model:
    """A network of timm.

    Raises:
        NotSmallError: if it has more parameters than are measured here.
        NoInputError: if it accepts no image of the sizes tried.
    """
    declare_operators()
    import timm

    if name in vision.TIMM:
        side, settings = vision.TIMM[name]
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=5, **settings)
        return Model(AllTensors(module).eval(), (numbers(2, 3, side, side),))
    known = timm.get_pretrained_cfg(name)
    sides = (*SIDES, known.input_size[-1] if known is not None else SIDES[-1])
    for settings in SETTINGS[:-1]:
        make = partial(timm.create_model, name, num_classes=5, **settings)
        try:
            return _with_image(make, (settings.get("img_size", SIDES[0]), *sides))
        except NotSmallError:
            raise
        except Exception:  # the network has no such setting
            continue
    return _with_image(partial(timm.create_model, name, num_classes=5), sides)


def _with_image(make: Callable[[], nn.Module], sides: tuple[int, ...] = SIDES) -> Model:
    """The network with the smallest image it accepts."""
    size = _size(make)
    if size > LARGEST:
        raise NotSmallError(f"{size:,} parameters")
    torch.manual_seed(0)
    module = AllTensors(make()).eval()
    return next(_accepted(module, sides))


def _size(make: Callable[[], nn.Module]) -> int:
    """Number of parameters; without memory for them, if the network can be built so."""
    try:
        with torch.device("meta"):
            module = make()
    except NotImplementedError:
        module = make()
    return sum(each.numel() for each in module.parameters())


def _accepted(module: nn.Module, sides: tuple[int, ...]) -> Iterator[Model]:
    said = ""
    for side in sides:
        model = Model(module, (numbers(2, 3, side, side),))
        try:
            with torch.no_grad():
                module(*model.inputs(0))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            continue
        yield model
    raise NoInputError(" ".join(said.split())[:300])
