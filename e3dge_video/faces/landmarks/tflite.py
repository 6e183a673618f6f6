"""TensorFlow Lite networks run by OpenCV's DNN module, whose outputs are told apart by their size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import BackendError


class TFLiteNetwork:
    """A network with several outputs.

    OpenCV 5's new engine registers only the last output of a TensorFlow Lite graph; the classic engine (and OpenCV 4)
    registers all.

    Args:
        path: Model file.
        outputs: Number of values of each wanted output, by the name the caller gives it.
    """

    def __init__(self, path: Path, outputs: Mapping[str, int]) -> None:
        try:
            if hasattr(cv2.dnn, "ENGINE_CLASSIC"):
                self._net = cv2.dnn.readNetFromTFLite(str(path), cv2.dnn.ENGINE_CLASSIC)
            else:
                self._net = cv2.dnn.readNetFromTFLite(str(path))
        except (cv2.error, AttributeError, TypeError) as error:
            raise BackendError(
                f"{path}: OpenCV {cv2.__version__} cannot load this model, it takes 4.8 or later and a whole file "
                f"({str(error).strip().splitlines()[-1]})"
            ) from error
        self._layers = list(self._net.getUnconnectedOutLayersNames())
        self._path, self._outputs = path, dict(outputs)

    def __call__(
        self, picture: NDArray[np.uint8], *, low: float = 0.0, high: float = 1.0
    ) -> dict[str, NDArray[np.float32]]:
        """Run the network.

        Args:
            picture: RGB, of the network's size. [S, S, 3]
            low: Value that the network wants for black.
            high: Value that it wants for white.

        Returns:
            The outputs by name.
        """
        scale = (high - low) / 255.0
        # OpenCV subtracts the mean before it scales.
        self._net.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(picture), scale, mean=(-low / scale,) * 3))
        values = self._net.forward(self._layers)
        result: dict[str, NDArray[np.float32]] = {}
        for name, size in self._outputs.items():
            match = [value for value in values if value.size == size]
            if len(match) != 1:
                raise BackendError(
                    f"{self._path}: not the model it should be: one output of {size} values ({name}) expected, "
                    f"found {[v.size for v in values]}"
                )
            result[name] = np.asarray(match[0], dtype=np.float32)
        return result
