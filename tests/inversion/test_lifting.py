"""The lift on a scene where everything is known: a textured ball before a plain wall."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from e3dge_video.geometry.cameras import EG3D_PIVOT, Camera
from e3dge_video.geometry.projection import pixel_directions
from e3dge_video.inversion.lifting import Change, Layer, LiftConfig, ResidualLift, Toon
from e3dge_video.inversion.painting import box_mean, clean_rim, contour, push_pull, shifted_share
from e3dge_video.models.encoders.residual_blender import ResidualBlender

SIZE, RADIUS = 64, 0.2


def ball(camera: Camera, textured: bool) -> Layer:
    """A ball around the pivot: grey, or with colours that depend on the place."""
    pivot = torch.tensor(EG3D_PIVOT)
    rays, origin = pixel_directions(camera, SIZE), camera.position[:, None]
    along = ((pivot - origin) * rays).sum(-1)
    gap = (origin + along[..., None] * rays - pivot).square().sum(-1)
    hit = gap < RADIUS**2
    depth = along - (RADIUS**2 - gap).clamp_min(0).sqrt()
    points = origin + depth[..., None] * rays - pivot
    color = 0.5 + (0.3 * torch.sin(points * 25) if textured else 0 * points)
    alpha = hit.float().view(-1, 1, SIZE, SIZE)
    return Layer(color.transpose(1, 2).view(-1, 3, SIZE, SIZE) * alpha, alpha, depth.view(-1, 1, SIZE, SIZE))


def picture(camera: Camera, wall: float = 0.1) -> torch.Tensor:
    layer = ball(camera, textured=True)
    return 2 * (layer.color + (1 - layer.alpha) * wall) - 1


def lifted(camera: Camera):
    coarse = ball(camera, textured=False)
    return ResidualLift().lift(picture(camera), coarse.alpha, coarse, camera)


def test_input_view_is_given_back():
    camera = Camera.orbit(0.1, -0.05)
    image, _ = ResidualLift().render(lifted(camera), ball(camera, textured=False), camera)
    error = (image - picture(camera)).abs().mean(dim=1)[0]
    assert error.mean() < 0.012 and error.median() < 1e-3


def test_novel_view_carries_the_texture_where_it_was_seen():
    camera, other = Camera.orbit(0.0, 0.0), Camera.orbit(0.3, 0.1)
    target = ball(other, textured=False)
    image, alpha = ResidualLift().render(lifted(camera), target, other)
    truth = picture(other)
    core = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    core[22:42, 18:40] = True
    assert (image - truth).abs().mean(dim=1)[0][core].mean() < 0.05
    untextured = 2 * target.color + 2 * (1 - target.alpha) * 0.1 - 1
    assert (untextured - truth).abs().mean(dim=1)[0][core].mean() > 0.2
    assert torch.isfinite(image).all() and (alpha <= target.alpha + 1e-6).all()


def test_nothing_stands_where_the_input_saw_the_wall():
    """The generated head is larger than the real one: the surplus must not become wall-coloured skin."""
    camera = Camera.orbit(0.0, 0.0)
    coarse = ball(camera, textured=False)
    matte = F.max_pool2d(-coarse.alpha, 7, 1, 3).neg()
    real = matte * coarse.color + (1 - matte) * 0.1
    scene = ResidualLift().lift(2 * real - 1, matte, coarse, camera)
    image, alpha = ResidualLift().render(scene, coarse, camera)
    surplus = (coarse.alpha - matte)[0, 0] > 0.5
    assert alpha[0, 0][surplus].max() < 0.3
    assert (image[0] - (2 * real - 1)[0]).abs().mean(dim=0)[surplus].mean() < 0.15


def test_hidden_side_continues_without_a_seam():
    """From the far side nothing was seen: the result is the coarse head plus a smooth residual, not holes."""
    camera, behind = Camera.orbit(0.0, 0.0), Camera.orbit(2.8, 0.0)
    bright = ball(camera, textured=False)
    image = 2 * (bright.color * 1.4 + (1 - bright.alpha) * 0.1) - 1
    scene = ResidualLift().lift(image, bright.alpha, bright, camera)
    seen, alpha = ResidualLift().render(scene, ball(behind, textured=False), behind)
    inside = alpha[0, 0] > 0.99
    assert seen[0, 0][inside].std() < 0.05


def test_the_head_is_not_shown_a_second_time_behind_itself():
    """Where the head turned away, one sees what stood beside it, not the picture's head again."""
    camera, other = Camera.orbit(0.0, 0.0), Camera.orbit(0.3, 0.0)
    nothing = ball(other, textured=False)
    nothing = Layer(nothing.color * 0, nothing.alpha * 0, nothing.depth)
    image, _ = ResidualLift().render(lifted(camera), nothing, other)
    assert (image - (2 * 0.1 - 1)).abs().max() < 0.02, "the wall, all over"


def test_shoulders_cut_by_the_crop_go_on_beyond_it_and_fade():
    """A foreground that reaches the picture's border has no straight edge when that border comes into view."""
    camera, other = Camera.orbit(0.0, 0.0), Camera.orbit(0.3, 0.0)
    coarse = ball(camera, textured=False)
    matte = coarse.alpha.clone()
    matte[:, :, 48:] = 1.0
    image = (2 * (0.8 * matte + 0.1 * (1 - matte)) - 1).expand(-1, 3, -1, -1)
    scene = ResidualLift().lift(image, matte, coarse, camera)
    nothing = replace(coarse, color=coarse.color * 0, alpha=coarse.alpha * 0)
    shown, _ = ResidualLift().render(scene, nothing, other)
    row = (shown[0].mean(dim=0)[60] + 1) / 2
    assert row.max() > 0.75
    # In the picture itself the border is a step of 0.7; beyond it the row falls by little at a time.
    assert row.diff().abs().max() < 0.2


def test_a_change_of_tone_keeps_the_detail_and_new_things_replace_it():
    before = ball(Camera.orbit(0.0, 0.0), textured=False)
    middle = (slice(None), slice(None), slice(30, 34), slice(30, 34))
    toned = replace(before, color=before.color * 0.5)
    spotted, dented = (replace(before, color=before.color.clone()), replace(before, depth=before.depth.clone()))
    spotted.color[middle] = 0.0
    dented.depth[middle] += 0.1
    threshold = LiftConfig().edit_threshold
    assert Change.between(before, toned).replaced[middle].max() < 0.1 * threshold
    assert Change.between(before, spotted).replaced[middle].min() > threshold
    assert Change.between(before, dented).replaced[middle].min() > threshold
    gone = replace(before, alpha=before.alpha * 0, color=before.color * 0)
    assert Change.between(before, gone).replaced[middle].min() > threshold


def test_hair_beyond_the_outline_takes_the_tone_of_the_edit():
    """The real head is larger than the generated one: what stands out is still the same head."""
    camera = Camera.orbit(0.0, 0.0)
    coarse = ball(camera, textured=False)
    matte = F.max_pool2d(coarse.alpha, 7, 1, 3)
    image = 2 * (0.5 * matte + 0.1 * (1 - matte)) - 1
    scene = ResidualLift().lift(image.expand(-1, 3, -1, -1), matte, coarse, camera)
    lighter = replace(coarse, color=coarse.color + 0.2 * coarse.alpha)
    shown, _ = ResidualLift().render(scene, lighter, camera, Change.between(coarse, lighter))
    beyond = (matte - coarse.alpha)[0, 0] > 0.5
    assert (shown[0][:, beyond] - (2 * 0.7 - 1)).abs().mean() < 0.03
    wall = F.max_pool2d(matte, 9, 1, 4)[0, 0] == 0
    assert (shown[0][:, wall] - (2 * 0.1 - 1)).abs().max() < 0.02, "the background is not the head's"


def test_a_wrinkle_takes_the_same_share_of_brighter_skin():
    camera = Camera.orbit(0.0, 0.0)
    coarse = ball(camera, textured=False)
    model = float(coarse.color[..., 32, 32].mean())
    image = (2 * 0.9 * coarse.alpha - 1).expand(-1, 3, -1, -1)
    scene = ResidualLift().lift(image, coarse.alpha, coarse, camera)
    wrinkled = replace(coarse, color=coarse.color.clone())
    wrinkled.color[..., 30:34, 20:44] *= 0.85
    shown, _ = ResidualLift().render(scene, wrinkled, camera, Change.between(coarse, wrinkled))
    assert model < 0.7
    assert float((shown[..., 32, 32].mean() + 1) / 2) == pytest.approx(0.85 * 0.9, abs=0.03)
    assert float((shown[..., 20, 32].mean() + 1) / 2) == pytest.approx(0.9, abs=0.02)


def test_a_cartoon_keeps_its_tone_past_the_border_of_the_picture():
    camera = Camera.orbit(0.0, 0.0)
    # The picture's camera has the ball at its lower border, the other one sees all of it.
    aside = Camera(camera.cam2world.clone(), camera.intrinsics)
    aside.cam2world[:, 1, 3] += 0.3
    drawn = ball(aside, textured=False)
    toon = Toon.of(lifted(aside), drawn, 1.0)
    target = ball(camera, textured=False)
    image, alpha = ResidualLift().render(lifted(aside), target, camera, Change.between(drawn, drawn), toon)
    head = (image + 1) / 2
    inside = -F.max_pool2d(-alpha, 5, 1, 2) > 0.99
    beyond = inside & (torch.arange(SIZE)[:, None] > SIZE // 2)
    assert beyond.sum() > 100
    assert head.mean(dim=1, keepdim=True)[beyond].min() > 0.25, "no place of the head may turn black"


def test_a_contour_is_clear_lies_inside_and_leaves_small_things_out():
    size, radius = 128, 40.0
    rows, columns = torch.meshgrid(torch.arange(size) - 63.5, torch.arange(size) - 63.5, indexing="ij")
    distance = radius - (rows.square() + columns.square()).sqrt()  # into the head
    alpha = torch.sigmoid(distance / 1.5)  # some six pixels soft
    alpha[4:8, 4:8] = 1.0  # a wisp
    inside, line = contour(alpha[None, None])
    assert inside[0, 0][distance > 2].min() == 1 and inside[0, 0][distance < -2].max() == 0
    assert line[0, 0][(distance - 0.6).abs() < 0.2].min() > 0.5
    assert line[0, 0][(distance < -1) | (distance > 3)].max() == 0
    assert (line <= inside).all()
    flat, none = contour(torch.full((1, 1, size, size), 0.5))
    assert not none.any() and (flat == 0.5).all(), "what has no rim has no line"


def test_an_outline_goes_as_far_as_the_degree():
    camera = Camera.orbit(0.0, 0.0)
    drawn = ball(camera, textured=False)
    source = ResidualLift().lift(picture(camera, wall=0.9), drawn.alpha, drawn, camera)
    change = Change.between(drawn, drawn)
    pictures = {}
    for degree in (0.0, 0.5, 1.0):
        for outline in (False, True):
            toon = Toon.of(source, drawn, degree, outline=outline)
            pictures[degree, outline], _ = ResidualLift().render(source, drawn, camera, change, toon)
    darker = {degree: (pictures[degree, False] - pictures[degree, True]).amax() for degree in (0.5, 1.0)}
    assert torch.equal(pictures[0.0, True], pictures[0.0, False])
    assert darker[1.0] > 1.5 * darker[0.5] > 0.05
    middle = slice(SIZE // 2 - 8, SIZE // 2 + 8)
    torch.testing.assert_close(pictures[1.0, True][..., middle, middle], pictures[1.0, False][..., middle, middle])


def test_residual_steps_back_where_the_edit_changes_the_picture():
    camera = Camera.orbit(0.0, 0.0)
    target, none = ball(camera, textured=False), torch.zeros(1, 1, SIZE, SIZE)
    some = none.clone()
    some[..., 20:44, 20:44] = 1.5
    tone, shade = torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE)
    image, _ = ResidualLift().render(lifted(camera), target, camera, Change(some, tone, shade, 0 * tone))
    kept, _ = ResidualLift().render(lifted(camera), target, camera, Change(none, tone, shade, 0 * tone))
    assert (kept - picture(camera)).abs()[0, :, 31:33, 31:33].mean() < 0.02
    assert (image - picture(camera)).abs()[0, :, 24:40, 24:40].max() > 0.1


def test_what_an_edit_only_shifts_stays_where_the_person_has_it():
    """The light in the model's eye moves by two pixels; the person's own is elsewhere, and shows neither of them."""
    camera, size, y, x = Camera.orbit(0.0, 0.0), 256, 118, 120

    def layer(eye_at: int, mouth: float) -> Layer:
        color = torch.full((1, 3, size, size), 0.5)
        color[..., y - 4 : y + 5, x - 8 : x + 9] = 0.15
        color[..., y - 1 : y + 2, eye_at : eye_at + 3] = 0.95
        color[..., 160:172, 116:140] = mouth
        color[..., 80:82, 100:150] *= 0.95 if mouth < 0.5 else 1  # a furrow
        return Layer(color, torch.ones(1, 1, size, size), torch.full((1, 1, size, size), 2.7))

    before, after = layer(x, 0.5), layer(x + 2, 0.1)
    person = torch.full((1, 3, size, size), 0.4)
    person[..., y - 1 : y + 2, x - 6 : x - 3] = 0.8
    source = ResidualLift().lift(2 * person - 1, torch.ones(1, 1, size, size), before, camera)
    change = Change.between(before, after)
    image, _ = ResidualLift().render(source, after, camera, change)
    shown = (image + 1) / 2
    eye = (..., slice(y - 4, y + 5), slice(x - 8, x + 9))
    mouth, furrow = (..., slice(164, 168), slice(122, 134)), (..., slice(80, 82), slice(110, 140))
    torch.testing.assert_close(shown[eye], person[eye], rtol=0, atol=0.15)
    bare, _ = ResidualLift().render(source, after, camera, replace(change, steady=torch.zeros_like(change.steady)))
    assert float(((bare + 1) / 2 - person)[eye].abs().max()) > 0.4, "or else the light would show twice"
    assert float(shown[mouth].mean()) < 0.15 and float(change.replaced[mouth].min()) > 0.35
    torch.testing.assert_close(shown[furrow], person[furrow] * 0.95, rtol=0, atol=0.01)


def test_a_lid_that_falls_is_no_shift():
    """It looks like the skin beside it, but where the eye was, none is left near."""
    size = 256
    open_eye = torch.full((1, 3, size, size), 0.6)
    shut = open_eye.clone()
    open_eye[..., 114:124, 110:134] = 0.1
    shut[..., 122:124, 110:134] = 0.1
    assert float(shifted_share(open_eye, shut)[..., 115:118, 113:131].max()) < 0.05
    aside = open_eye.roll(2, dims=-1)
    assert float(shifted_share(open_eye, aside)[..., 116:122, 133:135].min()) > 0.5


def test_rim_takes_the_colour_inside_and_the_inside_keeps_its_own():
    across = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    alpha = ((across - 0.4) / 0.1).clamp(0, 1)
    inside = 0.2 + 0.5 * torch.rand(1, 3, 64, 64) * (across > 0.7)
    fringe = torch.where(alpha < 0.9, 0.9, inside)
    cleaned = clean_rim(fringe * alpha, alpha)
    torch.testing.assert_close(cleaned[..., 36:], inside[..., 36:])
    rim = (alpha > 0.05) & (alpha < 0.9)
    assert (cleaned / alpha.clamp_min(0.05) - 0.2).abs()[rim.expand(-1, 3, -1, -1)].max() < 1e-4
    assert (cleaned <= alpha).all()


@pytest.mark.parametrize("side", [1, 3, 17, 33])
def test_box_mean_is_the_mean_of_the_square_inside_the_image(side):
    values = torch.rand(2, 3, 24, 20)
    square = F.avg_pool2d(values, side, 1, side // 2, count_include_pad=False)
    torch.testing.assert_close(box_mean(values, side), square)


def test_push_pull_keeps_trusted_values_and_fills_constant_fields_exactly():
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(2, 3, 32, 32, generator=generator)
    weight = (torch.rand(2, 1, 32, 32, generator=generator) > 0.7).float()
    filled = push_pull(values, weight)
    assert torch.equal(filled * weight, values * weight)
    constant = push_pull(torch.full((1, 1, 32, 32), 0.7), weight[:1])
    assert constant.sub(0.7).abs().max() < 1e-5
    lowest = torch.where(weight > 0, values, torch.full_like(values, 9.0)).amin(dim=(2, 3))
    assert (filled.amin(dim=(2, 3)) >= lowest - 1e-5).all()


@pytest.mark.parametrize("size", [30, 31])
def test_push_pull_takes_any_size(size):
    assert push_pull(torch.rand(1, 3, size, size), torch.zeros(1, 1, size, size)).isfinite().all()


def test_a_learned_blend_leaves_the_input_view_alone():
    """Whatever it learned, the input's own camera shows the input; from aside it shows."""
    blender = ResidualBlender((8, 12)).requires_grad_(False)
    blender.out.bias[3] = 12.0  # show nothing, anywhere
    camera, other = Camera.orbit(0.0, 0.0), Camera.orbit(0.3, 0.1)
    plain, learned = ResidualLift(), ResidualLift(blender=blender)
    target = ball(camera, textured=False)
    images = [lift.render(lifted(camera), target, camera)[0] for lift in (plain, learned)]
    inside = F.avg_pool2d(target.alpha, 9, 1, 4)[0, 0] > 0.99
    assert (images[0] - images[1]).abs().mean(dim=1)[0][inside].max() < 0.02
    aside = [lift.render(lifted(camera), ball(other, textured=False), other)[0] for lift in (plain, learned)]
    assert (aside[0] - aside[1]).abs().max() > 0.05
