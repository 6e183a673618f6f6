"""Procedural heads need the package anny; without it their tests are skipped with that reason."""

from __future__ import annotations

import importlib.util

import pytest

collect_ignore_glob = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("anny") is None:
        for item in items:
            if "tests/heads/" in item.nodeid.replace("\\", "/"):
                item.add_marker(pytest.mark.skip(reason="the package anny is not installed (extra `heads`)"))


@pytest.fixture(scope="session")
def sampler():  # type: ignore[no-untyped-def]
    from e3dge_video.heads import HeadSampler

    return HeadSampler()
