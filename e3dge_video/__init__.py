"""Turn a talking-head video into a 4D portrait: new views, edits, toons and depth (E3DGE, IJCV 2025)."""

__version__ = "0.1.0"
