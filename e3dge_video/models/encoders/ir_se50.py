"""IR-SE50, the body of E0 and the network that tells people apart.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019; used as pSp uses it (Richardson et
al., "Encoding in Style", 2021). Letters: B batch, S side of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.models.encoders.backbone import IRBlock

#: Width and number of blocks of each stage; the first block of a stage halves the size.
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
#: Rows and columns of a 256 px crop that hold the face, and the side that the recogniser takes.
FACE_ROWS, FACE_COLUMNS, FACE_SIDE = slice(35, 223), slice(32, 220), 112


class IRSE50(nn.Module):
    """Image → one feature map per stage.

    Args:
        stages: Width and number of blocks of each stage.
    """

    def __init__(self, stages: Sequence[tuple[int, int]] = STAGES) -> None:
        super().__init__()
        width = stages[0][0]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))
        inputs = (width, *(stage for stage, _ in stages[:-1]))
        self.stages = nn.ModuleList(
            nn.Sequential(*(IRBlock(i if k == 0 else o, o, 2 if k == 0 else 1) for k in range(n)))
            for i, (o, n) in zip(inputs, stages, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B, 3, S, S] → maps at S/2 (64 channels), S/4 (128), S/8 (256) and S/16 (512)."""
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class FaceRecognizer(nn.Module):
    """Whose face it is: crops → unit vectors that are close for the same person."""

    def __init__(self) -> None:
        super().__init__()
        self.body = IRSE50()
        width, side = STAGES[-1][0], FACE_SIDE >> len(STAGES)
        self.norm = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width * side * side, 512)
        self.output_norm = nn.BatchNorm1d(512)

    def forward(self, image: Tensor) -> Tensor:
        """Crops of 256 px in the alignment of FFHQ, in [-1, 1] [B, 3, 256, 256] → [B, 512]"""
        if image.shape[-2:] != (256, 256):
            raise ValueError(f"the recogniser takes crops of 256 px, got {tuple(image.shape[-2:])}")
        face = F.adaptive_avg_pool2d(image[..., FACE_ROWS, FACE_COLUMNS], FACE_SIDE)
        x = self.norm(self.body(face)[-1])
        return F.normalize(self.output_norm(self.linear(x.flatten(1))), dim=1)
