"""Stages compute where their networks are. There need not be a GPU to see it: torch's device "meta" refuses, as a GPU
does, to compute with tensors that were left on the CPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from e3dge_video.models.attributes import AttributeNet
from e3dge_video.models.build import build_generator, build_psp
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.pose_encoder import PoseEncoder, ViewpointEncoder
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.matting import MatteNet
from e3dge_video.training.attribute_stage import AttributeConfig, AttributeStage
from e3dge_video.training.generator_stage import PointConfig, PointStage
from e3dge_video.training.image_losses import ImageLossConfig, image_losses
from e3dge_video.training.mapping_stage import MappingStage, MappingStageConfig
from e3dge_video.training.matte_stage import MatteStage, MatteStageConfig
from e3dge_video.training.points_stage import FacePointsConfig, FacePointsStage
from e3dge_video.training.pose_stage import HeadPoseConfig, HeadPoses, PoseStage, TaughtPoseConfig, TaughtPoses
from e3dge_video.training.taught_global_stage import TaughtGlobalConfig, TaughtGlobalStage
from e3dge_video.training.teacher import Teacher, TeacherConfig
from tests.support.tiny_model import ENCODER, GENERATOR, MATTE, PSP, STYLESDF


def generator() -> EG3D:
    return EG3D(GENERATOR)


MAKERS = {
    "mapping": lambda views: MappingStage(generator(), MappingStageConfig(codes=64, held_out=16, batch=8)),
    "points": lambda views: PointStage(generator(), views, PointConfig(identities=1, views=1, pixels=64)),
    "landmarks": lambda views: FacePointsStage(FacePoints(32), generator(), views, FacePointsConfig(batch=4)),
    "matte": lambda views: MatteStage(MatteNet(MATTE), views, MatteStageConfig(batch=2)),
    "attributes": lambda views: AttributeStage(
        AttributeNet(len(views.attribute_names)), views, AttributeConfig(batch=2)
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_stages_compute_where_their_networks_are(tiny_views, name: str) -> None:
    stage = MAKERS[name](tiny_views)
    for module in stage.modules().values():
        module.to("meta")
    losses = stage.losses(0, np.random.default_rng(0))
    assert {value.device.type for value in losses.values()} == {"meta"}
    torch.stack(list(losses.values())).sum().backward()


def test_the_pose_head_computes_where_it_is(tiny_views) -> None:
    encoder = GlobalEncoder(ENCODER, (6, 32)).to("meta")
    head = PoseEncoder(*encoder.feature_shape).to("meta")
    stage = PoseStage(encoder, head, HeadPoses(tiny_views, HeadPoseConfig(batch=2)))
    assert stage.losses(0, np.random.default_rng(0))["pose"].device.type == "meta"


@pytest.mark.parametrize("backbone", ["eg3d", "stylesdf"])
def test_what_a_generator_teaches_is_computed_where_it_is(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # does not know "meta"
    # Where a ray meets the box depends on numbers, which "meta" has none of.
    rays = replace(GENERATOR.rays, near_far=(2.2, 3.2))
    options = replace(GENERATOR, rays=rays) if backbone == "eg3d" else STYLESDF
    teaching = TeacherConfig(image_size=32)
    loss = image_losses(ImageLossConfig(perceptual_network="features-ours", identity=0))
    teacher = Teacher(build_generator(options), teaching)
    stage = TaughtGlobalStage(build_psp(PSP, options), teacher, loss, TaughtGlobalConfig(batch=2, teacher=teaching))
    for module in (stage.encoder, teacher.generator, loss):
        module.to("meta")
    losses = stage.losses(0, np.random.default_rng(0))
    assert {value.device.type for value in losses.values()} == {"meta"}
    torch.stack(list(losses.values())).sum().backward()
    head = ViewpointEncoder(*stage.encoder.feature_shape).to("meta")
    pose = PoseStage(stage.encoder, head, TaughtPoses(teacher, TaughtPoseConfig(2, teaching)))
    assert pose.losses(0, np.random.default_rng(0))["pose"].device.type == "meta"
