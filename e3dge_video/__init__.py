"""Turn a talking-head video into a 4D portrait: new views, edits, toons and depth (E3DGE, IJCV 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from e3dge_video.geometry.cameras import Camera
    from e3dge_video.inversion.load import load_generator, load_inverter
    from e3dge_video.pipelines.request import run

__version__ = "0.1.0"
__all__ = ["Camera", "__version__", "load_generator", "load_inverter", "run"]

_HOMES = {
    "Camera": "geometry.cameras",
    "load_generator": "inversion.load",
    "load_inverter": "inversion.load",
    "run": "pipelines.request",
}


def __getattr__(name: str) -> Any:
    """Public names load when they are first used, so that `import e3dge_video` needs neither torch nor Ray."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
