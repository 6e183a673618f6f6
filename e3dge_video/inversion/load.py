"""From a bundle to a generator or a whole inverter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from e3dge_video.errors import ModelError
from e3dge_video.inversion.branch_views import released_view, smooth_view
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.paper import PaperInverter, ReleasedObserver, TaughtObserver
from e3dge_video.inversion.toon import ToonGenerator
from e3dge_video.models.build import build_discriminator, build_generator, build_psp, orbit_of
from e3dge_video.models.discriminators import DualDiscriminator, ImageDiscriminator, ViewpointDiscriminator
from e3dge_video.models.encoders.backbone import FeaturePyramid
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.hybrid import HybridEncoders, LocalBranch
from e3dge_video.models.encoders.ir_se50 import IRSE50
from e3dge_video.models.encoders.pose_encoder import PoseEncoder, ViewpointEncoder
from e3dge_video.models.encoders.psp import INPUT_SIZE, PSPEncoder
from e3dge_video.models.encoders.residual_blender import ResidualBlender
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.base import Generator
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.matting import MatteNet
from e3dge_video.weights.bundle import (
    DETAIL_FILE,
    DISCRIMINATOR_FILE,
    EDITS_FILE,
    ENCODER_FILE,
    GENERATOR_FILE,
    TOON_FILE,
    Bundle,
    read_bundle,
    read_spec,
    require_starter_encoders,
    require_toon,
)
from e3dge_video.weights.catalog import find_bundle

EXPRESSION_KEY = "expression"


@dataclass(frozen=True)
class Settler:
    """The small part of a model that settles codes and cameras over time; light enough for the driver process.

    Attributes:
        face_points: 3D landmarks of a code.
        expression: Basis of what expression changes in a code. [K, W]
    """

    face_points: FacePoints
    expression: Tensor


def load_generator(name: str) -> Generator:
    """The generator of a bundle given by name or folder, in evaluation mode.

    Raises:
        ModelError: No such bundle, or it does not hold what it should.
    """
    return generator_of(read_bundle(find_bundle(name)))


def load_inverter(name: str = "starter", *, device: str = "cpu", toon: float = 0.0, local: bool = False) -> Inverter:
    """The whole model of a bundle like the starter, given by name or folder, in evaluation mode.

    Args:
        local: Let E1 modulate the features of G, as in the paper, beneath the lift (`docs/detail.md` has what either is
            worth on the starter).
        toon: Degree of toonification, 0..1, of what `Inverter.toonify` draws; 0 leaves the toon generator away.

    Raises:
        ModelError: No such bundle, or it does not hold what it should.
    """
    folder = find_bundle(name)
    spec = read_spec(folder)
    require_starter_encoders(folder, spec)
    if toon:
        require_toon(folder, spec)
    if local and spec.local is None:
        raise ModelError(f"{folder}: the model has no local branch (E1); train one with `e3dge-video train align`")
    bundle = read_bundle(folder)
    generator = generator_of(bundle)
    assert spec.encoder is not None and spec.matte is not None
    encoder = GlobalEncoder(spec.encoder, generator.latent_shape)
    modules: dict[str, nn.Module] = {
        "encoder": encoder,
        "pose_encoder": PoseEncoder(*encoder.feature_shape),
        "face_points": FacePoints(generator.latent_shape[1]),
        "matte": MatteNet(spec.matte),
    }
    for part, module in modules.items():
        _fill(module, bundle, ENCODER_FILE, part)
    inverter = Inverter(
        generator,
        **modules,  # type: ignore[arg-type]
        directions=directions_of(bundle),
        expression=_tensors(bundle, EDITS_FILE)[EXPRESSION_KEY],
        neural_resolution=spec.neural_resolution,
        resolution=spec.resolution,
        local=local_of(bundle, generator) if local else None,
        blender=blender_of(bundle),
        toon=toon_generator_of(bundle, generator, toon) if toon else None,
    )
    return inverter.eval().requires_grad_(False).to(device)


def local_of(bundle: Bundle, generator: Generator) -> LocalBranch | None:
    """The local branch of a bundle already read, if it has one."""
    if bundle.spec.local is None:
        return None
    branch = LocalBranch(bundle.spec.local, generator.feature_width)
    _fill(branch, bundle, DETAIL_FILE, "local")
    return branch


def blender_of(bundle: Bundle) -> ResidualBlender | None:
    """The learned part of the lift of a bundle already read, if it has one."""
    if bundle.spec.blend is None:
        return None
    blender = ResidualBlender(bundle.spec.blend)
    _fill(blender, bundle, DETAIL_FILE, "blender")
    return blender


def load_portrait_model(name: str, *, device: str = "cpu", toon: float = 0.0) -> Inverter | PaperInverter:
    """What turns pictures into portraits, of a bundle of either kind, in evaluation mode; see `load_inverter`."""
    spec = read_spec(find_bundle(name))
    load = load_inverter if spec.hybrid is None and spec.psp is None else load_paper_inverter
    return load(name, device=device, toon=toon)


def load_paper_inverter(name: str, *, device: str = "cpu", toon: float = 0.0) -> PaperInverter:
    """The paper's model, with either generator, of a bundle given by name or folder, in evaluation mode.

    Args:
        toon: Degree of toonification, 0..1, of what `PaperInverter.toonify` draws; 0 leaves the toon generator away.

    Raises:
        ModelError: No such bundle, or it does not hold what it should.
    """
    return paper_inverter_of(read_bundle(find_bundle(name)), toon=toon).to(device)


def paper_inverter_of(bundle: Bundle, *, toon: float = 0.0) -> PaperInverter:
    """The same, of a bundle already read.

    Raises:
        ModelError: It has no such encoders, or tensors that do not fit its options.
    """
    spec, generator = bundle.spec, generator_of(bundle)
    observer: ReleasedObserver | TaughtObserver
    local = local_of(bundle, generator)
    if spec.hybrid is not None and isinstance(generator, StyleSDF):
        encoders, viewpoints = HybridEncoders(spec.hybrid.encoders), ViewpointDiscriminator(spec.hybrid.viewpoints)
        _fill(encoders, bundle, ENCODER_FILE, "encoders")
        _fill(viewpoints, bundle, ENCODER_FILE, "viewpoints")
        observer = ReleasedObserver(encoders.global_encoder, viewpoints)
        local = local or encoders.local
    elif spec.psp is not None:
        observer = TaughtObserver(*psp_of(bundle))
    else:
        raise ModelError(
            f"{bundle.folder}: the model {spec.name} has none of the paper's encoders; import E3DGE's with "
            "`e3dge-video models import` from a runner's checkpoint, its generator and volume renderer, or train some "
            "with `train global` and `train pose`"
        )
    inverter = PaperInverter(
        generator,
        observer,
        released_view if isinstance(generator, StyleSDF) else smooth_view,
        orbit_of(spec.generator),
        local,
        directions=directions_of(bundle),
        toon=toon_generator_of(bundle, generator, toon) if toon else None,
    )
    return inverter.eval().requires_grad_(False)


def psp_of(bundle: Bundle) -> tuple[PSPEncoder, ViewpointEncoder]:
    """The paper's E0 and E_ξ of a bundle already read, in evaluation mode: what its generator taught them.

    With `seen = encoder(image)`, `seen.latents` are the codes of a picture, and
    `generator.camera_at(pose_encoder.pose(seen.features))` is its camera.

    Raises:
        ModelError: It has none, or tensors that do not fit its options.
    """
    if bundle.spec.psp is None:
        raise ModelError(
            f"{bundle.folder}: the model {bundle.spec.name} has no E0 trained on its generator's heads; train one with "
            "`e3dge-video train global` and `train pose`, and put it in with `train pack`"
        )
    encoder = build_psp(bundle.spec.psp, bundle.spec.generator)
    pose_encoder = ViewpointEncoder(*encoder.feature_shape)
    _fill(encoder, bundle, ENCODER_FILE, "encoder")
    _fill(pose_encoder, bundle, ENCODER_FILE, "pose_encoder")
    return encoder.eval().requires_grad_(False), pose_encoder.eval().requires_grad_(False)


def encoder_body_of(bundle: Bundle) -> tuple[FeaturePyramid | IRSE50, int]:
    """The body of the E0 of a bundle already read, and the side of the images that it was trained on, pixels."""
    spec = bundle.spec
    if spec.psp is not None:
        taught, _ = psp_of(bundle)
        return taught.psp.body, taught.input_size
    if spec.hybrid is not None:
        observer = paper_inverter_of(bundle).observer
        assert isinstance(observer, ReleasedObserver)
        return observer.encoder.body, INPUT_SIZE
    encoder = load_inverter(str(bundle.folder)).encoder
    return encoder.body, encoder.config.input_size


def load_psp(name: str) -> tuple[PSPEncoder, ViewpointEncoder]:
    """The same, of a bundle given by name or folder."""
    return psp_of(read_bundle(find_bundle(name)))


def load_settler(folder: Path) -> Settler:
    """What settles codes over time, of a bundle's folder; its files are not verified again."""
    bundle = read_bundle(folder, verify=False)
    face_points = FacePoints(bundle.spec.generator.latent_shape[1])
    _fill(face_points, bundle, ENCODER_FILE, "face_points")
    return Settler(face_points.eval().requires_grad_(False), _tensors(bundle, EDITS_FILE)[EXPRESSION_KEY])


def generator_of(bundle: Bundle) -> Generator:
    """The generator of a bundle already read, in evaluation mode."""
    generator = build_generator(bundle.spec.generator)
    _fill(generator, bundle, GENERATOR_FILE, None)
    return generator.eval().requires_grad_(False)


def discriminator_of(bundle: Bundle) -> DualDiscriminator | ImageDiscriminator | None:
    """The discriminator that the generator of a bundle was trained against, if the bundle holds it.

    Args:
        bundle: Read with its discriminator.

    Raises:
        ModelError: It has tensors that do not fit its options.
    """
    if bundle.spec.discriminator is None:
        return None
    discriminator = build_discriminator(bundle.spec.discriminator)
    _fill(discriminator, bundle, DISCRIMINATOR_FILE, None)
    return discriminator


def directions_of(bundle: Bundle) -> dict[str, Tensor]:
    """The editing directions of a bundle already read. [L, W] each

    Raises:
        ModelError: One is missing, or moves layers that it should leave alone.
    """
    tensors, found = (_tensors(bundle, EDITS_FILE) if bundle.spec.edits else {}), {}
    for name, use in bundle.spec.edits.items():
        if name not in tensors or tensors[name].shape != bundle.spec.generator.latent_shape:
            raise ModelError(f"{bundle.folder / EDITS_FILE}: has no direction {name} of the generator's codes")
        first, stop = use.layers or (0, None)
        if tensors[name][:first].any() or (stop is not None and tensors[name][stop:].any()):
            raise ModelError(
                f"{bundle.folder / EDITS_FILE}: {name} moves other layers than the {first}-{(stop or 0) - 1} that its "
                "model.json names; import or fit it again"
            )
        found[name] = tensors[name]
    return found


def toon_generator_of(bundle: Bundle, generator: Generator, degree: float) -> ToonGenerator:
    """What draws cartoons of a bundle already read, `degree` of the way from its generator.

    Raises:
        ModelError: There are none, or tensors that the generator does not have.
    """
    require_toon(bundle.folder, bundle.spec)
    assert bundle.spec.toon is not None
    tensors = _tensors(bundle, TOON_FILE)
    assert isinstance(generator, nn.Module)
    expected = generator.state_dict()
    _compare(bundle.folder / TOON_FILE, {k: v for k, v in expected.items() if k in tensors}, tensors)
    layers = {key: tensors[key] for key in expected if key in tensors}  # coarse to fine
    return ToonGenerator(generator, layers, degree, outline=bundle.spec.toon.outline)


def _tensors(bundle: Bundle, file: str) -> dict[str, Tensor]:
    if file not in bundle.tensors:
        raise ModelError(f"{bundle.folder}: has no {file}; it cannot be used for this")
    return bundle.tensors[file]


def _fill(module: nn.Module, bundle: Bundle, file: str, part: str | None) -> None:
    """Load a module's weights, strictly: from the whole file, or from the keys that begin with `part.`."""
    tensors = _tensors(bundle, file)
    if part is not None:
        tensors = {k.removeprefix(part + "."): v for k, v in tensors.items() if k.startswith(part + ".")}
    _compare(bundle.folder / file, module.state_dict(), tensors)
    module.load_state_dict({k: v.to(torch.float32) if v.is_floating_point() else v for k, v in tensors.items()})


def _compare(path: Path, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names or shapes than expected."""
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    misshapen = [k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape]
    if missing or surplus or misshapen:
        wrong = "; ".join(
            f"{what} {len(keys)}, e.g. {keys[0]}"
            for what, keys in (("missing", missing), ("not known", surplus), ("of another shape", misshapen))
            if keys
        )
        raise ModelError(f"{path}: does not fit its model.json ({wrong})")
