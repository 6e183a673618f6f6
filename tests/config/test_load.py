from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from e3dge_video.config.load import config_root, load_config, to_mapping
from e3dge_video.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"
    bounds: tuple[float, float] | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    path: Path | None = None
    steps: int = 5


def test_defaults_file_and_overrides_apply_in_that_order(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("steps: 7\ninner:\n  rate: 1\n  sizes: [3]\n")
    config = load_config(Outer, file, ["inner.rate=2", "path=/x", "inner.bounds=[1, 2.5]"])
    assert config == Outer(Inner(2.0, (3,), "a", (1.0, 2.5)), Path("/x"), 7)
    assert load_config(Outer) == Outer()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepps=1", "did you mean steps"),
        ("inner.kind=c", "'a' | 'b'"),
        ("steps=true", "expected int"),
        ("steps=1.5", "expected int"),
        ("inner.sizes=3", "inner.sizes"),
        ("steps", "section.key=value"),
        ("inner.bounds=[1]", "inner.bounds"),
        ("steps.x=1", "steps"),
    ],
)
def test_wrong_options_are_one_clear_line(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, None, [override])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_file(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(Outer, tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Outer, tmp_path / "none.yaml")


def test_bundled_folder_is_there():
    assert config_root().is_dir()


def test_mapping_round_trip():
    assert load_config(Outer, None, []) == Outer(**{"inner": Inner(**to_mapping(Inner())), "path": None, "steps": 5})
