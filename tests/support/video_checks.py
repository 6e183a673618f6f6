"""What tests of whole files measure: times and sound of a file, and its frames encoded again."""

from __future__ import annotations

import av

from e3dge_video.io.indexing import build_index
from e3dge_video.io.reader import VideoReader
from e3dge_video.io.segments import H264, encode_segment

FAST = H264(preset="ultrafast")


def segments_of(path, chunk, encoding=FAST, start=0, stop=None):
    """A video, decoded and encoded chunk by chunk on the absolute grid."""
    with VideoReader(path) as reader:
        index = reader.index
        stop = len(index) if stop is None else stop
        first = start
        while first < stop:
            end = min((first // chunk + 1) * chunk, stop)
            frames = reader.read(first, end)
            yield encode_segment(
                frames.rgb,
                frames.pts,
                index.durations[first:end],
                index.time_base,
                encoding,
                first_frame=first,
                rate=index.rate,
            )
            first = end


def sound_of(path):
    """Time and bytes of every sound packet, track by track."""
    tracks = {}
    with av.open(str(path)) as container:
        sounds = list(container.streams.audio)
        for packet in container.demux(sounds) if sounds else ():
            if packet.size:
                times = (packet.pts * packet.time_base, packet.dts * packet.time_base)
                tracks.setdefault(packet.stream.index, []).append((*times, bytes(packet)))
    return [packets for _, packets in sorted(tracks.items())]


def times_of(path):
    index = build_index(path)
    return [index.time(i) for i in range(len(index))], index.end
