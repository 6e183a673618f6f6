"""The whole released model in full size: E0, camera, Δ, E1, E_ADA, fusion, FiLM, both stages of the generator.

One picture is reconstructed from its own camera (`self`), seen from another one (`novel`), and seen from there with a
smile (`edit`, `edit_novel`). The weights take the way of published files: written, imported, loaded. A case that no key
of the file belongs to is not computed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e3dge_reference import (
    CHAIN,
    DATA,
    MODULE,
    close,
    description,
    formula_input,
    formula_state,
    generator_shapes,
    outputs,
    stored,
    tensors,
)
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import axial_depth, in_image, project
from e3dge_video.inversion.branch_views import optical_depth
from e3dge_video.inversion.load import load_paper_inverter
from e3dge_video.inversion.paper import PaperInversion, PaperInverter
from e3dge_video.models.encoders.fusion import positional_encoding
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender
from e3dge_video.training.geometry_supervision import foreground_depth
from e3dge_video.weights import importing
from e3dge_video.weights.importing import import_model

FILE = "hybrid_formula"
#: The reference changes its caller's codes when it edits them; ours do not change.
KEYS = outputs(FILE, r"edit\.latents_renderer_orig_after_call")
NOVEL = (0.2, -0.1)
BOUNDARIES = DATA.parents[1] / "editing_boundaries" / "stylesdf"
#: Heads that are never evaluated: the formula need not fill them.
UNUSED = r"encoder\.styles_stylegan\.[1-9]\."


def write_files(folder: Path) -> list[Path]:
    """The files of a whole model, as the official code saves them: the runner's, the generator's, the renderer's."""
    runner: dict[str, Any] = {"iter": 0, "discriminator": {}, "optimizer_g_optimizer": {}}
    for entry, shapes in description(FILE)["shapes"].items():
        state = formula_state(shapes, description(FILE)["formula_rules_e3dge"], skip=UNUSED)
        state |= {key: torch.zeros(1).expand(shapes[key]) for key in shapes.keys() - state.keys()}
        runner[entry] = {key.removeprefix(f"{entry}."): value for key, value in state.items()}
    generator = formula_state(generator_shapes("generator"), description(FILE)["formula_rules_generator"])
    viewpoints = formula_state(generator_shapes("vdisc"), description(FILE)["formula_rules_vdisc"], prefix="vdisc.")
    files = {"runner": runner, "generator": {"g_ema": generator}, "renderer": {"d": viewpoints}}
    for name, values in files.items():
        torch.save(values, folder / f"{name}.pt")
    return [folder / f"{name}.pt" for name in files]


def imported(folder: Path) -> PaperInverter:
    """The model that an import of these files makes; its mean codes are those of 64 given z."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E3DGE_CACHE", str(folder))
        patch.setattr(importing, "check_image", lambda generator: torch.zeros(3, 8, 8))  # 1024 px that nobody looks at
        files = write_files(folder)
        done = import_model(files, "hybrid")
        for file in files:
            file.unlink()
        inverter = load_paper_inverter("hybrid")
        shutil.rmtree(done.folder)
    inverter.generator.measure_mean(formula_input("mean_z", 64, 256))
    return inverter


class Model:
    """The inverter and what it makes of the picture, case by case."""

    def __init__(self, folder: Path) -> None:
        self.inverter = imported(folder)
        self.image = (0.5 * formula_input("image", 1, 3, 256, 256)).clamp(-1, 1)
        branch = self.inverter.local
        assert branch is not None and branch.fusion is not None
        self.branch, self.fusion = branch, branch.fusion
        self.found: dict[str, dict[str, Tensor]] = {}
        self.inversion = self.inverter.invert(self.image)

    def group(self, name: str) -> dict[str, Tensor]:
        """What the reference stores of a case; the whole tensors, half a gigabyte of a view, are not kept."""
        if name not in self.found:
            values = dict(getattr(self, f"compute_{name.lower()}")())
            keys = [key for key in KEYS if key.split(".")[0] == name]
            self.found[name] = {key: stored(FILE, key, values).clone() for key in keys}
        return self.found[name]

    def compute_e0(self) -> Iterator[tuple[str, Tensor]]:
        encoder, model = self.inverter.observer.encoder, self.inverter.generator
        yield "E0.input_layer", encoder.body.stem(self.image)
        for block, taps in zip((2, 6, 20, 23), encoder.body(self.image), strict=True):
            yield f"E0.body.{block}", taps
        _, at_64, at_32, _ = encoder.pyramid(self.image)
        yield from (("E0.feat_maps_p64", at_64), ("E0.p32", at_32))
        field, decoder = model.unpack(model.mean_latents[None])
        yield from (("E0.mean_w_renderer", field[:, 0]), ("E0.mean_w_decoder", decoder[:, 0]))
        field, decoder = model.unpack(self.inversion.latents)
        yield from (("E0.latents_renderer_wplus", field), ("E0.latents_decoder_wplus", decoder))

    def compute_ref(self) -> Iterator[tuple[str, Tensor]]:
        coarse, depth = self.inversion.coarse, optical_depth(self.inversion.coarse, self.inversion.camera)
        yield from camera_values("ref", self.inversion.camera)
        near, far = self.inverter.generator.renderer.near_far
        yield from (("ref.cam.near", torch.full((1, 1, 1), near)), ("ref.cam.far", torch.full((1, 1, 1), far)))
        yield "ref.thumb64", coarse.rgb
        yield "ref.xyz", coarse.xyz
        yield "ref.depth", depth[:, 0, ..., None, None]
        yield "ref.fgmask", (depth < foreground_depth(self.inverter.generator)).float()[..., None]
        yield "ref.res_gt", self.inversion.residual

    def compute_e1(self) -> Iterator[tuple[str, Tensor]]:
        features = None if self.inversion.detail is None else self.inversion.detail.features
        assert features is not None
        yield from (("E1.ref_feat", features), ("E1.ref_feat_pix_0_0_to_3_3", features[..., :4, :4]))

    def compute_sdf(self) -> Iterator[tuple[str, Tensor]]:
        yield "sdf.ref", self.inversion.coarse.sdf.permute(0, 2, 3, 1)[..., None]

    def compute_self(self) -> Iterator[tuple[str, Tensor]]:
        rendered, values = self.rendered("self", self.inversion, self.inversion.camera)
        yield from values
        if any(key.startswith("self.rgb") for key in tensors(FILE)):
            image = self.inverter.generator.upsample(rendered, self.inversion.latents)
            yield "self.rgb", image
            yield "self.rgb_avgpool64", avg_pool2d(image, 16)
            yield "self.rgb_crop_480_512", image[..., 480:512, 480:512]

    def compute_novel(self) -> Iterator[tuple[str, Tensor]]:
        camera = Camera.from_stylesdf(torch.tensor([NOVEL]))
        yield from camera_values("novel", camera)
        model = self.inverter.generator
        plain = model.render(model.planes(self.inversion.latents), camera)
        yield "novel.global_thumb", plain.rgb
        yield "novel.depth", optical_depth(plain, camera)[:, 0, ..., None, None]
        yield from self.rendered("novel", self.inversion, camera)[1]

    @cached_property
    def edited(self) -> PaperInversion:
        """One step along the reference's direction, which is the same for all rows of the field and of the decoder."""
        model, data = self.inverter.generator, tensors(FILE)
        smile = model.pack(
            (data["edit.latents_renderer"] - data["E0.latents_renderer_wplus"])[:, :1].expand(-1, 9, -1),
            (data["edit.latents_decoder"] - data["E0.latents_decoder_wplus"])[:, :1].expand(-1, 10, -1),
        )
        return self.inverter.edit(self.inversion, self.inversion.latents + smile)

    def compute_edit(self) -> Iterator[tuple[str, Tensor]]:
        edited, model = self.edited, self.inverter.generator
        assert edited.detail is not None
        field, decoder = model.unpack(edited.latents)
        yield from (("edit.latents_renderer", field), ("edit.latents_decoder", decoder))
        yield "edit.thumb_refview", edited.coarse.rgb
        yield "edit.ref_aligned_res", edited.detail.residual
        assert edited.detail.features is not None
        yield "edit.E1.ref_feat", edited.detail.features

    def compute_edit_novel(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.rendered("edit_novel", self.edited, Camera.from_stylesdf(torch.tensor([NOVEL])))[1]

    def compute_unit(self) -> Iterator[tuple[str, Tensor]]:
        """The small networks alone."""
        aligned, local = formula_input("sft_enc", 16, 257), formula_input("sft_dec", 16, 256)
        yield "unit.modulation_of_input.mod", self.branch.film_head.mlp(0.5 * formula_input("mod", 16, 301))
        yield "unit.sft_of_inputs", self.fusion(local, aligned[:, :256], aligned[:, 256:])
        yield "unit.pe_of_input.pe", positional_encoding(0.12 * formula_input("pe", 16, 3))

    def rendered(
        self, name: str, inversion: PaperInversion, camera: Camera
    ) -> tuple[SurfaceRender, list[tuple[str, Tensor]]]:
        """One view, and what the networks on the way took and gave."""
        seen = Recorder(self.branch)
        rendered = self.inverter.render(inversion, camera)
        seen.stop()
        model = self.inverter.generator
        rays, depths = model.renderer.rays(camera, 64), model.renderer.depths()[..., None]
        points = (rays.origins[:, :, None] + depths * rays.directions[:, :, None]).flatten(1, 2)
        uv = project(points, inversion.camera)[0]
        local, aligned, visible = (torch.cat(parts, dim=1) for parts in zip(*seen.fusion_inputs, strict=True))
        samples = (1, 64, 64, model.config.volume.samples, -1)
        return rendered, [
            (f"{name}.ada_aligned_res", seen.aligned),
            (f"{name}.E1.que_feat", seen.features),
            (f"{name}.surface_in_ref_mask_frac", visible.mean()),
            (f"{name}.query3d.proj_xy_strided", (2 * uv - 1).transpose(1, 2)[..., ::997]),
            (f"{name}.query3d.depth_strided", axial_depth(points, inversion.camera)[:, None, ::997]),
            (f"{name}.query3d.in_img_frac", in_image(uv).float().mean()),
            (f"{name}.query3d.feats", local.transpose(1, 2)),
            (f"{name}.query2d.feats", aligned.transpose(1, 2)),
            (f"{name}.fused_feats", torch.cat(seen.fused, dim=1).view(samples)),
            (f"{name}.modulation", torch.cat(seen.modulations, dim=1).view(samples)),
            (f"{name}.thumb", rendered.rgb),
            (f"{name}.features", rendered.features),
        ]


class Recorder:
    """What passes through the local branch while a view is rendered."""

    aligned: Tensor
    features: Tensor

    def __init__(self, branch: LocalBranch) -> None:
        self.fusion_inputs: list[tuple[Tensor, ...]] = []
        self.fused: list[Tensor] = []
        self.modulations: list[Tensor] = []
        assert branch.fusion is not None
        assert branch.aligner is not None
        watched: list[nn.Module] = [branch.aligner, branch.encoder, branch.fusion, branch.film_head]
        hooks = (self.on_aligner, self.on_encoder, self.on_fusion, self.on_head)
        self._hooks = [module.register_forward_hook(hook) for module, hook in zip(watched, hooks, strict=True)]
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)  # several would take the blocks of rays in any order

    def on_aligner(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.aligned = output

    def on_encoder(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.features = output

    def on_fusion(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.fusion_inputs.append(inputs)
        self.fused.append(output)

    def on_head(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.modulations.append(torch.cat([output.scale, output.shift], dim=-1))

    def stop(self) -> None:
        torch.set_num_threads(self._threads)
        for hook in self._hooks:
            hook.remove()


def camera_values(name: str, camera: Camera) -> Iterator[tuple[str, Tensor]]:
    """A camera under the reference's names: its y axis points up and z backwards, and the image's y axis up."""
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0])
    extrinsics = camera.world2cam * signs[:, None]
    focal = 2 * camera.intrinsics[:, 0, 0]
    intrinsics = torch.diag_embed(torch.stack([focal, focal, torch.ones_like(focal)], dim=1))
    yield f"{name}.cam.viewpoint", camera.to_stylesdf()[0]
    yield f"{name}.cam.poses", (camera.cam2world * signs)[:, :3]
    yield f"{name}.cam.extrinsics", extrinsics[:, :3]
    yield f"{name}.cam.intrinsics", intrinsics
    yield f"{name}.cam.calibs", torch.cat([intrinsics @ extrinsics[:, :3], extrinsics[:, 3:]], dim=1)
    yield f"{name}.cam.focal", focal[:, None, None] * 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Made once, and given back at the end of the file: it takes two gigabytes."""
    with torch.no_grad():
        yield Model(tmp_path_factory.mktemp("hybrid"))


@pytest.mark.parametrize("key", KEYS)
def test_hybrid(model: Model, key: str) -> None:
    single = key.startswith(("unit.", "E0.")) or ".cam." in key
    close(key, model.group(key.split(".")[0])[key], tensors(FILE)[key], MODULE if single else CHAIN)


def test_edits_leave_the_inversion_alone(model: Model) -> None:
    """Unlike the reference's on a CPU, which adds the edit to its caller's codes."""
    before = model.inversion.latents.clone()
    assert not torch.equal(model.edited.latents, before)
    assert torch.equal(model.inversion.latents, before)


@pytest.mark.skipif(not BOUNDARIES.is_dir(), reason="the published directions do not lie beside the full set")
@pytest.mark.parametrize("part", ["renderer", "decoder"])
def test_the_step_is_the_published_direction(part: str) -> None:
    data, direction = tensors(FILE), np.load(BOUNDARIES / f"{part}_Smiling" / "boundary.npy")
    step = (data[f"edit.latents_{part}"] - data[f"E0.latents_{part}_wplus"])[0]
    torch.testing.assert_close(step, torch.from_numpy(direction).expand_as(step), rtol=0, atol=1e-6)
