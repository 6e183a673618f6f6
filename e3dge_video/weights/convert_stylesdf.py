"""StyleSDF's official parameter names → ours. Pure functions on plain values; no file is read here.

Official checkpoints hold `g_ema` (the generator to use), `g` and `d`; of the full models `d` is the image
discriminator, of the pretrained renderers the volume discriminator. Every size of the networks shows in the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.config.stylesdf import SirenConfig, StyleDecoderConfig, StyleSDFConfig, ViewpointConfig
from e3dge_video.errors import ModelError
from e3dge_video.models.discriminators import ImageDiscriminator, ViewpointDiscriminator
from e3dge_video.models.fir import make_filter
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.weights.state import Rename, check_state, ignored_by_reason, renamed, shapes_of

#: Foreign parameters that we do not take over, and why.
IGNORED = {
    r"decoder\.(conv1|convs\.\d+)\.bias": "no forward pass reads them: the layer's bias is `activate.bias`",
    r".+\.kernel": "every layer holds the same low-pass filter, which is checked and built in here",
}
_ADVICE = "is the file damaged, or not of StyleSDF?"
#: z that the mean codes are measured from, which checkpoints do not hold.
MEAN_SAMPLES = 10_000

_GENERATOR_NAMES: list[Rename] = [
    (re.compile(r"^style\.(\d+)\."), r"mapping.layers.\1."),
    (re.compile(r"^renderer\.sigmoid_beta$"), "renderer.beta"),
    (re.compile(r"\.gamma\."), ".scale."),
    (re.compile(r"\.beta\."), ".shift."),
    (re.compile(r"(pts_linears\.\d+|views_linears)\.(weight|bias)$"), r"\1.linear.\2"),
    (re.compile(r"^renderer\.network\.pts_linears\."), "renderer.siren.layers."),
    (re.compile(r"^renderer\.network\.views_linears\."), "renderer.siren.color_layer."),
    (re.compile(r"^renderer\.network\.rgb_linear\."), "renderer.siren.to_rgb."),
    (re.compile(r"^renderer\.network\.sigma_linear\."), "renderer.siren.to_sdf."),
    (re.compile(r"^decoder\.style\.(\d+)\."), lambda match: f"decoder.mapping.layers.{int(match[1]) - 1}."),
    (re.compile(r"^decoder\.noises\.noise_0$"), "decoder.conv.noise"),
    (re.compile(r"^decoder\.noises\.noise_(\d+)$"), lambda match: _layer_name(int(match[1]) - 1) + "noise"),
    (re.compile(r"^decoder\.convs\.(\d+)\."), lambda match: _layer_name(int(match[1]))),
    (re.compile(r"^decoder\.conv1\."), "decoder.conv."),
    (re.compile(r"^decoder\.to_rgb1\."), "decoder.to_rgb."),
    (re.compile(r"^decoder\.to_rgbs\.(\d+)\."), r"decoder.blocks.\1.to_rgb."),
    (re.compile(r"\.conv\.modulation\."), ".style."),
    (re.compile(r"(\.conv|\.conv\d|\.to_rgb)\.conv\.weight$"), r"\1.weight"),
    (re.compile(r"\.noise\.weight$"), ".noise_strength"),
    (re.compile(r"\.activate\.bias$"), ".bias"),
]
#: Discriminators: their block k is our block k − 1.
_BLOCKS: Rename = re.compile(r"^convs\.([1-9]\d*)\."), lambda match: f"blocks.{int(match[1]) - 1}."
_IMAGE_DISCRIMINATOR_NAMES: list[Rename] = [
    (re.compile(r"^convs\.0\.[01]\."), "blocks.0.from_rgb."),
    (re.compile(r"\.conv1\.[01]\."), ".conv0."),
    (re.compile(r"\.conv2\.[12]\."), ".conv1."),
    (re.compile(r"\.skip\.1\."), ".skip."),
    (re.compile(r"^final_conv\.[01]\."), "head.conv."),
    (re.compile(r"^final_linear\.0\."), "head.hidden."),
    (re.compile(r"^final_linear\.1\."), "head.output."),
]
_VOLUME_DISCRIMINATOR_NAMES: list[Rename] = [
    (re.compile(r"^convs\.0\.(conv|activation)\."), "from_rgb."),
    (re.compile(r"\.conv1\.(conv\.conv|activation)\."), ".conv0.conv."),
    (re.compile(r"\.conv2\.(conv\.conv|activation)\."), ".conv1.conv."),
    (re.compile(r"\.skip\.conv\."), ".skip."),
    (re.compile(r"^final_conv\.conv\."), "output."),
]


def stylesdf_config(foreign: Mapping[str, Tensor], *, viewpoint: ViewpointConfig | None = None) -> StyleSDFConfig:
    """Our options, read off the shapes of the official parameters.

    Args:
        foreign: State dictionary of the official generator (`g_ema`); one without a decoder is a pretrained renderer.
        viewpoint: The cameras of the training set, which shapes do not tell; None: those of FFHQ.

    Raises:
        ModelError: A parameter that tells a size is missing.
    """
    width = _shape(foreign, "style.0.weight")[0]
    decoder, resolution = None, StyleSDFConfig().resolution
    if any(key.startswith("decoder.") for key in foreign):
        resolution = _shape(foreign, "decoder.noises.noise_0")[-1]
        layers = ["conv1", *(f"convs.{2 * level}" for level in range(_count(foreign, r"decoder\.to_rgbs\.(\d+)\.")))]
        decoder = StyleDecoderConfig(
            w_dim=_shape(foreign, "decoder.style.1.weight")[0],
            channels=tuple(_shape(foreign, f"decoder.{layer}.activate.bias")[0] for layer in layers),
            mapping_layers=_count(foreign, r"decoder\.style\.(\d+)\.", first=1),  # number 0 is a normalisation
        )
    siren = SirenConfig(
        width=width,
        depth=_count(foreign, r"renderer\.network\.pts_linears\.(\d+)\."),
        mapping_layers=_count(foreign, r"style\.(\d+)\."),
    )
    return StyleSDFConfig(resolution=resolution, siren=siren, decoder=decoder, viewpoint=viewpoint or ViewpointConfig())


def stylesdf_to_native(
    foreign: Mapping[str, Tensor], config: StyleSDFConfig, *, mean_samples: int = MEAN_SAMPLES, seed: int = 0
) -> dict[str, Tensor]:
    """Rename StyleSDF's parameters to ours and measure the mean codes. Every foreign key is used or in `IGNORED`.

    Args:
        foreign: State dictionary of the official generator (`g_ema`).
        config: What `stylesdf_config` made of it.
        mean_samples: Random z that the mean codes are measured from.
        seed: Of these z.

    Raises:
        ModelError: Missing, unknown, misshapen or non-finite parameters, in one line.
    """
    native = {}
    for key, value in _kept(foreign, filter_gain=4.0):
        native[renamed(key, _GENERATOR_NAMES)] = _plain(key, value)
    with torch.device("meta"):
        generator = StyleSDF(config)
    expected = shapes_of(generator)
    native["mean_latents"] = torch.zeros(expected["mean_latents"])
    _check(native, expected, "generator")
    generator.load_state_dict(native, assign=True)
    generator.measure_mean(torch.randn(mean_samples, config.siren.width, generator=torch.Generator().manual_seed(seed)))
    return native


def ignored_keys(foreign: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Reason → parameters of the official generator that we do not take over for it."""
    return ignored_by_reason(foreign, IGNORED)


def image_discriminator_to_native(foreign: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of StyleSDF's image discriminator (`d` of a full model) to ours.

    Raises:
        ModelError: Missing, unknown, misshapen or non-finite parameters, in one line.
    """
    return _discriminator(
        foreign, _IMAGE_DISCRIMINATOR_NAMES, ImageDiscriminator, "image discriminator", ("1.bias", "conv2.2.bias")
    )


def image_discriminator_config(native: Mapping[str, Tensor]) -> DiscriminatorConfig:
    """Our options of the image discriminator.

    Args:
        native: What `image_discriminator_to_native` made.
    """
    blocks = sum(key.endswith(".conv1.bias") for key in native)
    inner = (len(native[f"blocks.{block}.conv1.bias"]) for block in reversed(range(blocks)))
    return DiscriminatorConfig("image", (*inner, len(native["blocks.0.from_rgb.bias"])))


def volume_discriminator_to_native(foreign: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of StyleSDF's volume discriminator (`d` of a pretrained renderer) to ours.

    Raises:
        ModelError: Missing, unknown, misshapen or non-finite parameters, in one line.
    """
    biases = ("activation.bias", "conv2.activation.bias")
    return _discriminator(foreign, _VOLUME_DISCRIMINATOR_NAMES, ViewpointDiscriminator, "volume discriminator", biases)


def volume_discriminator_channels(native: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Channels at 2, 4, 8, ... px, which `ViewpointDiscriminator` is built with.

    Args:
        native: What `volume_discriminator_to_native` made.
    """
    blocks = sum(key.endswith(".conv1.conv.bias") for key in native)
    inner = (len(native[f"blocks.{block}.conv1.conv.bias"]) for block in reversed(range(blocks)))
    return (*inner, len(native["from_rgb.bias"]))


def _kept(foreign: Mapping[str, Tensor], *, filter_gain: float) -> Iterator[tuple[str, Tensor]]:
    """All parameters but the ignored ones; filters are checked. An enlarging filter has gain 4, a shrinking one 1."""
    for key, value in foreign.items():
        if key.endswith(".kernel"):
            built_in = make_filter() * filter_gain
            if value.shape != built_in.shape or not torch.allclose(value.float(), built_in, atol=1e-6):
                raise ModelError(f"StyleSDF checkpoint: {key} is not the filter [1, 3, 3, 1]; there is no other")
        if not any(re.fullmatch(pattern, key) for pattern in IGNORED):
            yield key, value


def _plain(key: str, value: Tensor) -> Tensor:
    """Without the axes of length 1 that only served broadcasting; another length stays and is found out later."""
    value = value.float()
    if key.endswith(("sigmoid_beta", "noise.weight")) and value.numel() == 1:
        return value.reshape([])
    if value.ndim == 5 and len(value) == 1:  # kernels
        return value[0]
    if value.ndim == 4 and value.shape[:2] == (1, 1):  # noise images
        return value[0, 0]
    if value.ndim == 4 and key.endswith(".bias"):
        return value.flatten()
    return value


def _layer_name(index: int) -> str:
    """Our prefix of the official decoder's layer `convs.index`."""
    return f"decoder.blocks.{index // 2}.conv{index % 2}."


def _discriminator(
    foreign: Mapping[str, Tensor],
    renames: Sequence[Rename],
    kind: type[ImageDiscriminator] | type[ViewpointDiscriminator],
    title: str,
    biases: tuple[str, str],
) -> dict[str, Tensor]:
    """Renamed and checked parameters; `biases`, of the first block and of the others, tell the channels."""
    native = {renamed(key, [_BLOCKS, *renames]): value.float() for key, value in _kept(foreign, filter_gain=1.0)}
    count, (first, other) = _count(foreign, r"convs\.(\d+)\."), biases
    channels = [_shape(foreign, f"convs.{level}.{other}")[0] for level in range(count - 1, 0, -1)]
    with torch.device("meta"):
        network = kind([*channels, _shape(foreign, f"convs.0.{first}")[0]])
    _check(native, shapes_of(network), title)
    return native


def _count(foreign: Mapping[str, Tensor], pattern: str, *, first: int = 0) -> int:
    """How many numbered layers there are, from `first` on without a gap."""
    numbers = {int(match[1]) for key in foreign if (match := re.match(pattern, key))}
    if not numbers or numbers != set(range(first, first + len(numbers))):
        layers = pattern.split("(")[0].replace("\\", "")
        raise ModelError(f"StyleSDF checkpoint: layers {layers}* are missing; {_ADVICE}")
    return len(numbers)


def _shape(foreign: Mapping[str, Tensor], key: str) -> torch.Size:
    if key not in foreign or foreign[key].ndim == 0:
        raise ModelError(f"StyleSDF checkpoint: {key} is missing; {_ADVICE}")
    return foreign[key].shape


def _check(native: Mapping[str, Tensor], expected: Mapping[str, torch.Size], network: str) -> None:
    check_state(native, expected, complaint=f"StyleSDF checkpoint: not a whole {network}", advice=_ADVICE)
