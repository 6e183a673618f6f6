import pytest
import torch

from e3dge_video.errors import ConfigError
from e3dge_video.inversion.editing import Edit, apply_edits, edit_steps, parse_edit, parse_edits
from e3dge_video.weights.bundle import EditSpec

ROWS = 12
KNOWN = {
    "age": EditSpec("twenty years", (-1.5, 2.0)),
    "smile": EditSpec("a smile", (-1.0, 2.0)),
    "skin": EditSpec("smoother skin", (-1.0, 1.0), layers=(6, 12)),
}
ONCE = ((0.0, 1.0),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age", Edit("age", ONCE)),
        ("smile=1.5", Edit("smile", ((0.0, 1.5),))),
        ("age=-.5", Edit("age", ((0.0, -0.5),))),
        ("age=0@0s,2@4s", Edit("age", ((0.0, 0.0), (4.0, 2.0)))),
        ("age=0@1,1@2.5s,0@3s", Edit("age", ((1.0, 0.0), (2.5, 1.0), (3.0, 0.0)))),
        ("age:0-7", Edit("age", ONCE, (0, 8))),
        ("age:11=-1.5", Edit("age", ((0.0, -1.5),), (11, 12))),
        ("smile:2-3=0@0s,1@2s", Edit("smile", ((0.0, 0.0), (2.0, 1.0)), (2, 4))),
        ("skin", Edit("skin", ONCE)),
        ("skin:6-11", Edit("skin", ONCE, (6, 12))),
    ],
)
def test_parse(text, expected):
    assert parse_edit(text, KNOWN, ROWS) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("beard", "cannot edit 'beard'"),
        ("beard:0-3", "cannot edit 'beard'"),
        ("age=", "write a strength"),
        ("age=x", "write a strength"),
        ("age=1@", "write a strength"),
        ("age=1@2s,0@1s", "must rise"),
        ("age=3", "outside -1.5…2, where age works"),
        ("=1", "cannot edit ''"),
        ("age=0@0s,9@1s", "outside"),
        ("age:", "write layers as age:5 or age:0-7"),
        ("age:a-b=1", "write layers"),
        ("age:-1", "write layers"),
        ("age:0-7-9", "write layers"),
        ("age:7-3=1", "write age:3-7"),
        ("age:0-12", "age moves layers 0-11"),
        ("skin:5-8", "skin moves layers 6-11"),
        ("age:0-7=2.5", "on some layers no more than on all"),
    ],
)
def test_parse_refuses_in_one_line(text, reason):
    with pytest.raises(ConfigError) as caught:
        parse_edit(text, KNOWN, ROWS)
    assert "\n" not in str(caught.value) and text in str(caught.value) and reason in str(caught.value)


def test_an_attribute_may_come_once_for_each_layer():
    edits = parse_edits(["age:0-3=0.5", "smile", "age:4-11=1.5"], KNOWN, ROWS)
    assert [edit.label for edit in edits] == ["age:0-3", "smile", "age:4-11"]
    for texts in (["age", "age=2"], ["age:0-3", "age"], ["age:0-3", "smile", "age:3-5"]):
        with pytest.raises(ConfigError, match=f"--edit {texts[-1]}: {texts[0]} is given, too"):
            parse_edits(texts, KNOWN, ROWS)


def test_strength_runs_straight_between_keyframes_and_holds_outside():
    edit = parse_edit("age=0@1s,2@3s", KNOWN, ROWS)
    assert [edit.strength(t) for t in (0, 1, 2, 2.5, 3, 9)] == [0, 0, 1, 1.5, 2, 2]


def test_edits_move_only_what_is_asked():
    directions = {"age": torch.ones(2, 4), "smile": 2 * torch.ones(2, 4)}
    edits = [Edit("age", ONCE), Edit("smile", ONCE, (1, 2))]
    moved = apply_edits(
        torch.zeros(3, 2, 4),
        edit_steps(edits, directions),
        torch.tensor([[0, 0], [0.5, 0], [1, -1]]),
    )
    assert moved[:, 0, 0].tolist() == [0.0, 0.5, 1.0] and moved[:, 1, 0].tolist() == [0.0, 0.5, -1.0]


def test_orthogonal_edits_keep_the_first_and_leave_its_direction_alone():
    torch.manual_seed(0)
    directions = {name: torch.randn(4, 8) for name in ("age", "smile", "skin")}
    edits = [Edit("age", ONCE), Edit("smile", ONCE), Edit("skin", ONCE)]
    age, smile, skin = edit_steps(edits, directions, orthogonal=True)
    assert torch.equal(age, directions["age"])
    for a, b in ((age, smile), (age, skin), (smile, skin)):
        assert (a * b).sum(dim=-1).abs().max() < 1e-5
    # What is left out is the shared part and nothing else.
    shared = directions["smile"] - smile
    torch.testing.assert_close(torch.cosine_similarity(shared, age).abs(), torch.ones(4))
    turned = edit_steps(edits[::-1], directions, orthogonal=True)
    assert torch.equal(turned[0], directions["skin"]) and not torch.equal(turned[2], age)


def test_orthogonal_edits_meet_only_in_rows_that_both_move():
    torch.manual_seed(1)
    directions = {name: torch.randn(4, 8) for name in ("age", "smile")}
    _, smile, later = edit_steps(
        [Edit("age", ONCE, (0, 2)), Edit("smile", ONCE), Edit("age", ONCE, (2, 4))], directions, orthogonal=True
    )
    assert torch.equal(smile[2:], directions["smile"][2:])
    assert (smile[:2] * directions["age"][:2]).sum(dim=-1).abs().max() < 1e-5
    assert not later[:2].any() and (later * smile).sum(dim=-1).abs().max() < 1e-5


def test_of_an_edit_that_is_another_one_nothing_is_left():
    direction = torch.randn(3, 8)
    _, same = edit_steps(
        [Edit("age", ONCE), Edit("old", ONCE)], {"age": direction, "old": -0.3 * direction}, orthogonal=True
    )
    assert not same.any()
