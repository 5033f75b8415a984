"""The networks of the zoo: name, and the side of the images in pixels."""

from benchmarks.zoo.constructs import CONSTRUCTS

BUILT_IN = {"lenet300": 16, "lenet5": 16, "lenet_cifar": 16, "resnet8": 16, "mobilenet_small": 16}
TORCHVISION = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 32,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11_bn": 32,
    "vit_b_32": 32,
    "wide_resnet50_2": 32,
}
TIMM = {
    "cait_xxs24_224": 32,
    "convnext_atto": 32,
    "convnextv2_atto": 32,
    "crossvit_tiny_240": 240,
    "cspresnet50": 32,
    "deit_tiny_patch16_224": 32,
    "dla46_c": 32,
    "edgenext_xx_small": 64,
    "efficientvit_b0": 32,
    "ese_vovnet19b_dw": 32,
    "fastvit_t8": 64,
    "ghostnet_050": 32,
    "hrnet_w18_small": 64,
    "lcnet_035": 32,
    "levit_128s": 224,
    "mixer_s32_224": 224,
    "mobilenetv4_conv_small_035": 32,
    "mobileone_s0": 32,
    "mobilevit_xxs": 64,
    "nf_regnet_b0": 32,
    "poolformer_s12": 64,
    "pvt_v2_b0": 64,
    "res2net50_14w_8s": 32,
    "resmlp_12_224": 32,
    "tinynet_e": 32,
    "xcit_nano_12_p16_224": 64,
}
GROUPS = {
    "constructs": {f"benchmarks.zoo.constructs:{name}": 16 for name in CONSTRUCTS},
    "built-in": BUILT_IN,
    "torchvision": {f"torchvision:{name}": size for name, size in TORCHVISION.items()},
    "timm": {f"timm:{name}": size for name, size in TIMM.items()},
}
SIZES = {name: size for group in GROUPS.values() for name, size in group.items()}


def chosen(texts: list[str]) -> list[str]:
    """Return the networks that are named, belong to a named group, or contain a text.

    Raises:
        SystemExit: a text chooses none.
    """
    found: dict[str, None] = {}
    for text in texts:
        names = list(GROUPS.get(text, ())) or [name for name in SIZES if text == name or text in name.split(":")[-1]]
        if not names:
            raise SystemExit(f"--networks must name networks or groups ({', '.join(GROUPS)}), but got {text!r}.")
        found |= dict.fromkeys(names)
    return list(found) or list(SIZES)
