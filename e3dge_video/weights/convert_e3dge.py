"""E3DGE's released encoders → ours. Pure functions on plain values; no file is read here.

A checkpoint of the official runners has one entry for each network: `encoder` (E0), `netLocal` (E1 and the FiLM head),
`grid_align` (E_ADA) and `Fuse_sft_block` (the fusion). The runner with 2D alignment only has no fusion; the trainer of
stage 1, of which the toonification checkpoint is one, has E0 alone. The generator lies in StyleSDF's own files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn

from e3dge_video.config.encoders import HybridEncodersConfig
from e3dge_video.errors import ModelError
from e3dge_video.models.encoders.hybrid import HybridEncoders
from e3dge_video.models.encoders.ir_se50 import STAGES, FaceRecognizer
from e3dge_video.weights.state import Rename, check_state, ignored_by_reason, renamed, shapes_of

#: Networks of a checkpoint that we take over.
USED_ENTRIES = ("encoder", "netLocal", "grid_align", "Fuse_sft_block")
#: Other entries of a checkpoint, and why we leave them.
IGNORED_ENTRIES = {
    r"iter": "how far training had come",
    r"discriminator": "judges images while E1 trains; --discriminator keeps it",
    r"optim\w*": "state of a training run, which ours cannot continue",
}
#: Foreign parameters that we do not take over, and why.
IGNORED = {
    r".*\.num_batches_tracked": "counts training steps; nothing reads it",
    r"encoder\.styles_stylegan\.[1-9]\d*\..*": "never evaluated: the first head's code serves all rows of the decoder",
    r"netLocal\.downsample_channel_conv\..*": "never evaluated",
    r"netLocal\.image_filter\..*\.bn4\.(weight|bias)": "never evaluated, or the same tensor as `downsample.0`",
}
_ADVICE = "is the file damaged, or not of E3DGE?"
#: Our name of the IR-SE50 body's block with a given number.
_STARTS = list(accumulate((blocks for _, blocks in STAGES), initial=0))
_BLOCKS = {
    start + k: f"stages.{stage}.{k}."
    for stage, (start, (_, blocks)) in enumerate(zip(_STARTS, STAGES, strict=False))
    for k in range(blocks)
}
_BODY: list[Rename] = [
    (re.compile(r"\bbody\.(\d+)\."), lambda match: "body." + _BLOCKS.get(int(match[1]), f"{match[1]}.")),
    (re.compile(r"\binput_layer\."), "body.stem."),
    (re.compile(r"\.res_layer\.5\.fc1\."), ".residual.5.gate.0."),
    (re.compile(r"\.res_layer\.5\.fc2\."), ".residual.5.gate.2."),
    (re.compile(r"\.res_layer\."), ".residual."),
    (re.compile(r"\.shortcut_layer\."), ".shortcut."),
]
_MLP: list[Rename] = [(re.compile(r"\.fc_([01])\."), r".linear\1.")]
_NAMES: dict[str, list[Rename]] = {
    "encoder": [
        *_BODY,
        (re.compile(r"^encoder\.latlayer64\."), "encoder.laterals.0."),
        (re.compile(r"^encoder\.latlayer128\."), "encoder.laterals.1."),
        (re.compile(r"^encoder\.latlayer256\."), "encoder.laterals.2."),
        (re.compile(r"\.convs\.(\d*[02468])\."), lambda match: f".convs.{int(match[1]) // 2}."),  # odd: activations
        (re.compile(r"^encoder\.styles_pigan\."), "encoder.field_heads."),
        (re.compile(r"^encoder\.styles_stylegan\.0\."), "encoder.decoder_head."),
        (re.compile(r"^encoder\."), "global_encoder."),
    ],
    "netLocal": [
        *_MLP,
        (re.compile(r"^netLocal\.local_feat_to_tex_modulations_linear\.(weight|bias)$"), r"local.film_head.mlp.\1"),
        (re.compile(r"^netLocal\.local_feat_to_tex_modulations_linear\."), "local.film_head.mlp."),
        (re.compile(r"^netLocal\.(residual|depth)_conv\."), r"local.encoder.\1_stem."),
        (re.compile(r"_stem\.0\."), "_stem.conv_in."),
        (re.compile(r"_stem\.2\."), "_stem.conv_out."),
        (re.compile(r"_stem\.1\.conv\.([03])\."), lambda match: f"_stem.norms.{int(match[1]) // 3}."),
        (re.compile(r"_stem\.1\.conv\.([25])\."), lambda match: f"_stem.convs.{int(match[1]) // 3}."),
        (re.compile(r"^netLocal\.image_filter\."), "local.encoder.filter."),
        (re.compile(r"\.filter\.conv1\."), ".filter.conv."),
        (re.compile(r"\.filter\.bn1\."), ".filter.norm."),
        (re.compile(r"\.filter\.conv([234])\."), lambda match: f".filter.blocks.{int(match[1]) - 2}."),
        (re.compile(r"\.filter\.top_m_(\d+)\."), r".filter.stacks.\1.block."),
        (re.compile(r"\.filter\.conv_last(\d+)\."), r".filter.stacks.\1.conv."),
        (re.compile(r"\.filter\.bn_end(\d+)\."), r".filter.stacks.\1.norm."),
        (re.compile(r"\.filter\.l(\d+)\."), r".filter.stacks.\1.output."),
        (re.compile(r"\.filter\.bl(\d+)\."), r".filter.stacks.\1.features_back."),
        (re.compile(r"\.filter\.al(\d+)\."), r".filter.stacks.\1.output_back."),
        (re.compile(r"\.filter\.m(\d+)\.b(\d)_2\."), r".filter.stacks.\1.hourglass.b\2."),
        (re.compile(r"\.filter\.m(\d+)\.b(\d(?:_plus)?)_1\."), r".filter.stacks.\1.hourglass.inner.b\2."),
        (re.compile(r"\.b1\."), ".skip."),
        (re.compile(r"\.b2\."), ".down."),
        (re.compile(r"\.b2_plus\."), ".inner."),
        (re.compile(r"\.b3\."), ".up."),
        (re.compile(r"\.conv([123])\.weight$"), lambda match: f".convs.{int(match[1]) - 1}.weight"),
        (re.compile(r"\.bn([123])\."), lambda match: f".norms.{int(match[1]) - 1}."),
        (re.compile(r"\.downsample\."), ".shortcut."),
    ],
    "grid_align": [
        *_BODY,
        (re.compile(r"^grid_align\.conv_layer1\."), "local.aligner.stem."),
        (re.compile(r"^grid_align\.conv_layer([234])\."), lambda match: f"local.aligner.down.{int(match[1]) - 2}."),
        (re.compile(r"^grid_align\.dconv_layer([123])\."), lambda match: f"local.aligner.up.{int(match[1]) - 1}."),
    ],
    "Fuse_sft_block": [
        *_MLP,
        (re.compile(r"^Fuse_sft_block\.encode_enc\."), "local.fusion.joint."),
        (re.compile(r"^Fuse_sft_block\."), "local.fusion."),
    ],
}
_RECOGNIZER_NAMES: list[Rename] = [
    *_BODY,
    (re.compile(r"^output_layer\.0\."), "norm."),
    (re.compile(r"^output_layer\.3\."), "linear."),
    (re.compile(r"^output_layer\.4\."), "output_norm."),
]


def e3dge_parameters(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """All parameters of a checkpoint's networks in one dictionary, named `entry.parameter`.

    Raises:
        ModelError: No checkpoint of E3DGE's: an entry is missing, unknown or no network.
    """
    if "encoder" not in checkpoint:
        found = ", ".join(sorted(map(str, checkpoint))[:4]) or "nothing"
        raise ModelError(f"E3DGE checkpoint: no entry `encoder` (found {found}); {_ADVICE}")
    foreign: dict[str, Tensor] = {}
    for entry, network in checkpoint.items():
        if entry in USED_ENTRIES:
            if not isinstance(network, Mapping) or not all(isinstance(value, Tensor) for value in network.values()):
                raise ModelError(f"E3DGE checkpoint: entry `{entry}` is not a network's parameters; {_ADVICE}")
            foreign |= {f"{entry}.{str(name).removeprefix('module.')}": value for name, value in network.items()}
        elif not any(re.fullmatch(pattern, str(entry)) for pattern in IGNORED_ENTRIES):
            raise ModelError(f"E3DGE checkpoint: unknown entry `{entry}`; {_ADVICE}")
    return foreign


def e3dge_config(foreign: Mapping[str, Tensor]) -> HybridEncodersConfig:
    """Our options, read off the names and shapes of the official parameters (`e3dge_parameters`).

    Raises:
        ModelError: A parameter that tells a size is missing.
    """
    film = "netLocal.local_feat_to_tex_modulations_linear."
    local: Literal["none", "aligned", "hybrid"] = "none"
    if any(key.startswith(("netLocal.", "grid_align.")) for key in foreign):
        local = "hybrid" if any(key.startswith("Fuse_sft_block.") for key in foreign) else "aligned"
    return HybridEncodersConfig(
        field_rows=_heads(foreign, "styles_pigan"),
        field_width=_width(foreign, "encoder.styles_pigan.0.linear.bias"),
        decoder_rows=_heads(foreign, "styles_stylegan"),
        decoder_width=_width(foreign, "encoder.styles_stylegan.0.linear.bias"),
        local=local,
        stem_norm="batch" if "netLocal.residual_conv.1.conv.0.running_mean" in foreign else "instance",
        film_head="linear" if f"{film}weight" in foreign else "residual",
    )


def e3dge_to_native(foreign: Mapping[str, Tensor], config: HybridEncodersConfig) -> dict[str, Tensor]:
    """Rename E3DGE's parameters to those of `HybridEncoders`. Every foreign key is used or in `IGNORED`.

    Args:
        foreign: What `e3dge_parameters` made of a checkpoint.
        config: What `e3dge_config` made of it.

    Raises:
        ModelError: Missing, unknown, misshapen or non-finite parameters, in one line.
    """
    native = {
        renamed(key, _NAMES[key.partition(".")[0]]): value.float()
        for key, value in foreign.items()
        if not any(re.fullmatch(pattern, key) for pattern in IGNORED)
    }
    with torch.device("meta"):
        network = HybridEncoders(config)
    return _whole(native, network, "E3DGE checkpoint: not whole")


def ignored_keys(foreign: Iterable[str], entries: Iterable[str] = ()) -> dict[str, list[str]]:
    """Reason → what is not taken over for it.

    Args:
        foreign: Names of the parameters, as `e3dge_parameters` gives them.
        entries: Names of the checkpoint's entries.
    """
    return ignored_by_reason(entries, IGNORED_ENTRIES) | ignored_by_reason(foreign, IGNORED)


def recognizer_to_native(foreign: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of the released face recognition (`model_ir_se50.pth`) to those of `FaceRecognizer`.

    Raises:
        ModelError: Missing, unknown, misshapen or non-finite parameters, in one line.
    """
    native = {
        renamed(key, _RECOGNIZER_NAMES): value.float()
        for key, value in foreign.items()
        if not key.endswith(".num_batches_tracked")
    }
    with torch.device("meta"):
        network = FaceRecognizer()
    return _whole(native, network, "IR-SE50 weights: not whole")


def _whole(native: dict[str, Tensor], network: nn.Module, complaint: str) -> dict[str, Tensor]:
    """The parameters with our own counters of training steps, if nothing else is missing."""
    expected = shapes_of(network)
    counters = {name: torch.tensor(0) for name in expected if name.endswith(".num_batches_tracked")}
    check_state(native | counters, expected, complaint=complaint, advice=_ADVICE)
    return native | counters


def _heads(foreign: Mapping[str, Tensor], name: str) -> int:
    """How many heads of that name E0 has."""
    return len({match[1] for key in foreign if (match := re.match(rf"encoder\.{name}\.(\d+)\.", key))})


def _width(foreign: Mapping[str, Tensor], key: str) -> int:
    if key not in foreign or foreign[key].ndim != 1:
        raise ModelError(f"E3DGE checkpoint: {key} is missing; {_ADVICE}")
    return len(foreign[key])
