import pytest
import torch

from e3dge_video.errors import ConfigError
from e3dge_video.inversion.editing import Edit, apply_edits, parse_edit

KNOWN = {"age": (-1.5, 2.0), "smile": (-1.0, 2.0)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age", Edit("age", ((0.0, 1.0),))),
        ("smile=1.5", Edit("smile", ((0.0, 1.5),))),
        ("age=-.5", Edit("age", ((0.0, -0.5),))),
        ("age=0@0s,2@4s", Edit("age", ((0.0, 0.0), (4.0, 2.0)))),
        ("age=0@1,1@2.5s,0@3s", Edit("age", ((1.0, 0.0), (2.5, 1.0), (3.0, 0.0)))),
    ],
)
def test_parse(text, expected):
    assert parse_edit(text, KNOWN) == expected


@pytest.mark.parametrize("text", ["beard", "age=", "age=x", "age=1@", "age=1@2s,0@1s", "age=3", "=1", "age=0@0s,9@1s"])
def test_parse_refuses_in_one_line(text):
    with pytest.raises(ConfigError) as caught:
        parse_edit(text, KNOWN)
    assert "\n" not in str(caught.value) and text in str(caught.value)


def test_strength_runs_straight_between_keyframes_and_holds_outside():
    edit = parse_edit("age=0@1s,2@3s", KNOWN)
    assert [edit.strength(t) for t in (0, 1, 2, 2.5, 3, 9)] == [0, 0, 1, 1.5, 2, 2]


def test_edits_move_only_what_is_asked():
    latents = torch.zeros(3, 2, 4)
    directions = {"age": torch.ones(2, 4), "smile": 2 * torch.ones(2, 4)}
    moved = apply_edits(latents, directions, [{}, {"age": 0.5}, {"age": 1.0, "smile": -1.0}])
    assert moved[:, 0, 0].tolist() == [0.0, 0.5, -1.0]
