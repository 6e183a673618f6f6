"""Files in and out: pictures, videos with exact times, sound.

`info.check_video` says what a file is, or why it cannot be used. `indexing.build_index` lists its frames;
`reader.VideoReader` reads any of them, always the same; `sampling.sample_frames` takes a few from anywhere.
`segments.encode_segment` turns the frames of a chunk into bytes, `mux.mux` joins those and the source's sound into the
final file. `images.read_image` reads stills.
"""
