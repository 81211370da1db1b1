"""The networks of the zoo: how each is made, with random weights, and how small its images may be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import torchvision
import transformers
from torch import nn

from tests.models.zoo.examine import CLASSES, Finding, examine


class Member(NamedTuple):
    """One network: the family and the model's name, how it is made for an image size, and the sizes to try in turn."""

    family: str
    model: str
    make: Callable[[int], nn.Module]
    sizes: tuple[int, ...]


def look(member: Member) -> Finding:
    """What the network showed; an error is a failure like another.

    At the first size of image at which all is well, and at which the grid can tell places apart: on 2 x 2 cells every
    peak is next to every patch.
    """
    finding = Finding(failures=["it names no size"])
    for size in member.sizes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the libraries say of their own networks
            try:
                finding = examine(make(member, size), size)
            except Exception as error:
                finding = Finding(size=size, failures=[f"{type(error).__name__}: {error}".splitlines()[0]])
        if not finding.failures and min(finding.grid) > 2:
            break
    return finding


def make(member: Member, size: int) -> nn.Module:
    """The network, the same at every call."""
    torch.manual_seed(0)
    return member.make(size).eval()


# ----------------------------------------------------------------------------------------------- torchvision


def _torchvision(name: str) -> Callable[[int], nn.Module]:
    def build(size: int) -> nn.Module:
        options = {"image_size": size} if name.startswith("vit_") else {}
        if name in ("inception_v3", "googlenet"):
            options = {"init_weights": False}
        return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)

    return build


def _torchvision_sizes(name: str) -> tuple[int, ...]:
    if name.startswith("inception"):
        return (224,)
    return (112, 224) if name == "vit_h_14" else (128, 224)


TORCHVISION = [
    Member("torchvision", name, _torchvision(name), _torchvision_sizes(name))
    for name in torchvision.models.list_models(module=torchvision.models)
]

# ------------------------------------------------------------------------------------------------------ timm

# The smallest member of each of timm's modules, and the size of image it was made for.
TIMM_NAMES = {
    "beit": ("beit_base_patch16_224", 224),
    "byoanet": ("halonet_h1", 256),
    "byobnet": ("mobileone_s1", 224),
    "cait": ("cait_xxs24_224", 224),
    "coat": ("coat_tiny", 224),
    "convit": ("convit_tiny", 224),
    "convmixer": ("convmixer_768_32", 224),
    "convnext": ("convnext_zepto_rms", 224),
    "cpubone": ("cpubone_nano", 224),
    "crossvit": ("crossvit_tiny_240", 240),
    "csatv2": ("csatv2", 512),
    "cspnet": ("cs3darknet_focus_s", 256),
    "cspnext": ("cspnext_tiny", 224),
    "davit": ("davit_tiny", 224),
    "deepseek_vit": ("deepseek_vit_412m", 546),
    "deit": ("deit_tiny_patch16_224", 224),
    "densenet": ("densenet121", 224),
    "dla": ("dla46x_c", 224),
    "dpn": ("dpn48b", 224),
    "edgenext": ("edgenext_xx_small", 256),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientformer_v2": ("efficientformerv2_s0", 224),
    "efficientnet": ("mobilenetv2_035", 224),
    "efficientvim": ("efficientvim_m1", 224),
    "efficientvit_mit": ("efficientvit_b0", 224),
    "efficientvit_msra": ("efficientvit_m0", 224),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 256),
    "fasternet": ("fasternet_t0", 224),
    "fastvit": ("fastvit_t8", 256),
    "focalnet": ("focalnet_tiny_srf", 224),
    "gcvit": ("gcvit_xxtiny", 224),
    "gemma4_vit": ("gemma4_vit_167m_enc", 768),
    "ghostnet": ("ghostnet_050", 224),
    "hardcorenas": ("hardcorenas_b", 224),
    "hgnet": ("hgnetv2_b0", 224),
    "hiera": ("hiera_tiny_224", 224),
    "hieradet_sam2": ("sam2_hiera_tiny", 896),
    "hrnet": ("hrnet_w18_small", 224),
    "iformer": ("iformer_t", 224),
    "inception_next": ("inception_next_atto", 224),
    "inception_resnet_v2": ("inception_resnet_v2", 299),
    "inception_v3": ("inception_v3", 299),
    "inception_v4": ("inception_v4", 299),
    "lcnetv2": ("lcnetv2_small", 224),
    "levit": ("levit_128s", 224),
    "lowformer": ("lowformer_b0", 224),
    "mambaout": ("mambaout_femto", 224),
    "maxxvit": ("maxvit_pico_rw_256", 256),
    "metaformer": ("poolformerv2_s12", 224),
    "mlp_mixer": ("gmlp_ti16_224", 224),
    "mobilenetv3": ("lcnet_035", 224),
    "mobilenetv5": ("mobilenetv5_base", 256),
    "mobilevit": ("mobilevit_xxs", 256),
    "mvitv2": ("mvitv2_tiny", 224),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 384),
    "nasnet": ("nasnetalarge", 331),
    "nest": ("nest_tiny", 224),
    "nextvit": ("nextvit_small", 224),
    "nfnet": ("nf_regnet_b0", 192),
    "pit": ("pit_ti_224", 224),
    "pnasnet": ("pnasnet5large", 331),
    "pvt_v2": ("pvt_v2_b0", 224),
    "qwen3_vit": ("qwen3_vit_88m", 768),
    "rdnet": ("rdnet_tiny", 224),
    "regnet": ("regnetx_002", 224),
    "repghost": ("repghostnet_050", 224),
    "repvit": ("repvit_m1", 224),
    "res2net": ("res2next50", 224),
    "resnest": ("resnest14d", 224),
    "resnet": ("resnet10t", 176),
    "resnetv2": ("resnetv2_18", 224),
    "rexnet": ("rexnet_100", 224),
    "selecsls": ("selecsls42", 224),
    "senet": ("legacy_seresnet18", 224),
    "sequencer": ("sequencer2d_s", 224),
    "shvit": ("shvit_s1", 224),
    "sknet": ("skresnet18", 224),
    "starnet": ("starnet_s050", 224),
    "swiftformer": ("swiftformer_xs", 224),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 224),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 256),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 224),
    "tiny_vit": ("tiny_vit_5m_224", 224),
    "tnt": ("tnt_s_legacy_patch16_224", 224),
    "tresnet": ("tresnet_m", 224),
    "twins": ("twins_svt_small", 224),
    "vgg": ("vgg11", 224),
    "visformer": ("visformer_tiny", 224),
    "vision_transformer": ("vit_tiny_patch16_224", 224),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 224),
    "vision_transformer_relpos": ("vit_srelpos_small_patch16_224", 224),
    "vision_transformer_sam": ("samvit_base_patch16_224", 224),
    "vitamin": ("vitamin_small_224", 224),
    "volo": ("volo_d1_224", 224),
    "vovnet": ("ese_vovnet19b_slim_dw", 224),
    "xception": ("legacy_xception", 299),
    "xception_aligned": ("xception41p", 299),
    "xcit": ("xcit_nano_12_p8_224", 224),
}


def _timm(name: str) -> Callable[[int], nn.Module]:
    def build(size: int) -> nn.Module:
        try:
            return timm.create_model(name, pretrained=False, num_classes=CLASSES, img_size=size)
        except TypeError:
            return timm.create_model(name, pretrained=False, num_classes=CLASSES)

    return build


TIMM = [
    Member(f"timm {family}", name, _timm(name), (128, 126, size))
    for family, (name, size) in TIMM_NAMES.items()
]

# ---------------------------------------------------------------------------------------------- transformers

BLOCKS = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 384}
PATCHES = {**BLOCKS, "image_size": 64, "patch_size": 8}
STAGES = {
    "embed_dim": 96,
    "depths": [2, 2],
    "num_heads": [3, 6],
    "window_size": 4,
    "image_size": 64,
    "patch_size": 4,
}
CONVOLUTIONS = {"hidden_sizes": [64, 128, 256], "depths": [1, 1, 1]}

TRANSFORMERS_CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViT": ("ViTConfig", "ViTForImageClassification", PATCHES),
    "DeiT": ("DeiTConfig", "DeiTForImageClassification", PATCHES),
    "DeiT, distilled": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", PATCHES),
    "Swin": ("SwinConfig", "SwinForImageClassification", STAGES),
    "Swin v2": (
        "Swinv2Config",
        "Swinv2ForImageClassification",
        STAGES,
    ),
    "ConvNeXt": ("ConvNextConfig", "ConvNextForImageClassification", {**CONVOLUTIONS, "num_stages": 3}),
    # At 0.1, where it starts, the blocks of a network this small add next to nothing to the patches' projection.
    "BEiT": ("BeitConfig", "BeitForImageClassification", {**PATCHES, "layer_scale_init_value": 1.0}),
    "BEiT, class token": (
        "BeitConfig",
        "BeitForImageClassification",
        {**PATCHES, "use_mean_pooling": False, "use_relative_position_bias": True},
    ),
    "DINOv2": ("Dinov2Config", "Dinov2ForImageClassification", PATCHES),
    "DINOv2, registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersForImageClassification",
        {**PATCHES, "num_register_tokens": 4},
    ),
    "MobileViT": (
        "MobileViTConfig",
        "MobileViTForImageClassification",
        {"image_size": 128},
    ),
    "ResNet": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {**CONVOLUTIONS, "embedding_size": 16, "layer_type": "basic"},
    ),
}


def _transformers(config: str, model: str, options: dict[str, Any]) -> Callable[[int], nn.Module]:
    def build(size: int) -> nn.Module:
        return getattr(transformers, model)(getattr(transformers, config)(num_labels=CLASSES, **options))

    return build


TRANSFORMERS = [
    Member("transformers", family, _transformers(*row), (row[2].get("image_size", 64),))
    for family, row in TRANSFORMERS_CONFIGS.items()
]

ZOO = {f"{member.family} {member.model}": member for member in [*TORCHVISION, *TIMM, *TRANSFORMERS]}

EXCEPTIONS = {
    "timm gemma4_vit gemma4_vit_167m_enc": (
        "The model's output holds no logits",
        "refused: the encoder of a language model, without a head, gives tokens; pass `forward=` with a head of yours",
    ),
    "timm coat coat_tiny": (
        "are not where the map peaks",
        "the layer is found and drawn, but with random weights the upper left cell, which its padded convolutions make "
        "unlike all others, outshines the patch",
    ),
}
"""Networks that do not pass: the failure, and the reason."""
