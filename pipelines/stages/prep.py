"""Stage `prep`: decode again and cut the crops, one sub-pixel warp each.

Landmarks crossed the smoothing window, frames did not: decoding twice costs less than carrying frames along, and keeps
a chunk a function of its own span.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e3dge_video.faces.alignment import Similarity, warp_crop
from e3dge_video.pipelines.core.spec import Chunk, Payload
from e3dge_video.pipelines.stages.clip import Readers


@dataclass(frozen=True)
class Prep:
    """Crops of a chunk's frames.

    Attributes:
        size: Side of the crops, pixels.
    """

    size: int

    def __call__(self, chunk: Chunk, tools: Readers, track: Payload) -> Payload:
        clip = chunk.params
        crops = np.empty((len(chunk), self.size, self.size, 3), np.uint8)
        parameters, sources = np.asarray(track["crop"]), np.asarray(track["source"])
        reader = tools.of(clip)
        place = 0
        # Stand-in frames repeat; consecutive frames are read in one go.
        while place < len(chunk):
            stop = place + 1
            while stop < len(chunk) and sources[stop] - sources[stop - 1] in (0, 1):
                stop += 1
            first, last = int(sources[place]), int(sources[stop - 1])
            for frame in reader.iterate(clip.first + first, clip.first + last + 1):
                for k in np.flatnonzero(sources[place:stop] == frame.number - clip.first) + place:
                    crops[k] = warp_crop(frame.rgb, Similarity.from_parameters(parameters[k]), self.size)
            place = stop
        return {"crops": crops}
