"""Facial movements as amounts of Anny's 52 facial actions."""

from __future__ import annotations

from e3dge_video.heads.spec import Expression


def facial_actions(e: Expression) -> dict[str, float]:
    """Amounts by action name. The files' Left is the person's left, image right of a frontal view.

    Movements that exclude each other in a real face weaken each other here: lips cannot be spread and puckered.
    """
    rounding = 1.0 - 0.75 * e.smile
    pucker, funnel = 1.15 * e.pucker * rounding, 1.1 * e.funnel * rounding
    stretch = e.stretch * (1.0 - 0.7 * max(pucker, funnel)) * (1.0 - 0.5 * e.smile)
    closed = 1.0 - min(1.0, 1.6 * e.jaw_open)
    press, roll = e.press * closed, e.roll * closed
    frown = 1.3 * e.frown * (1.0 - 0.8 * e.smile)
    smile_left, smile_right = 1.25 * e.smile * (1.0 - e.smile_skew), 1.25 * e.smile * (1.0 + e.smile_skew)
    squint = min(1.0, e.squint + 0.35 * e.smile)
    # A broad smile bares the teeth unless the lips are pressed.
    bared = max(0.0, e.smile - 0.35) / 0.65 * (1.0 - e.press)
    wide_left, wide_right = e.wide * (1.0 - e.blink_left), e.wide * (1.0 - e.blink_right)
    up = e.brow_up * (1.0 - 0.6 * e.brow_down)
    actions = {
        "eyeBlinkRight": e.blink_left,
        "eyeBlinkLeft": e.blink_right,
        "eyeSquintRight": squint * (1.0 - 0.6 * e.blink_left),
        "eyeSquintLeft": squint * (1.0 - 0.6 * e.blink_right),
        "eyeWideRight": wide_left,
        "eyeWideLeft": wide_right,
        "cheekSquintRight": 0.6 * smile_left + 0.3 * e.squint,
        "cheekSquintLeft": 0.6 * smile_right + 0.3 * e.squint,
        # The base mesh looks stern: a resting face lifts the inner brows and the mouth's corners a little.
        "browInnerUp": min(1.0, 0.14 + 0.8 * up + e.brow_inner_up * (1 - e.brow_down)),
        "browOuterUpRight": up,
        "browOuterUpLeft": up,
        "browDownRight": e.brow_down,
        "browDownLeft": e.brow_down,
        # The base mesh rests with parted lips; a little less jaw closes them.
        "jawOpen": e.jaw_open + 0.07 * bared - 0.022 * closed * (1.0 - max(e.upper_up, e.lower_down, bared)),
        "jawRight": max(-e.jaw_side, 0.0),
        "jawLeft": max(e.jaw_side, 0.0),
        "mouthSmileRight": min(0.07 + smile_left, 1.25),
        "mouthSmileLeft": min(0.07 + smile_right, 1.25),
        "mouthDimpleRight": 0.3 * smile_left,
        "mouthDimpleLeft": 0.3 * smile_right,
        "mouthFrownRight": frown,
        "mouthFrownLeft": frown,
        "mouthPucker": pucker,
        "mouthFunnel": funnel,
        "mouthStretchRight": stretch,
        "mouthStretchLeft": stretch,
        "mouthPressRight": press,
        "mouthPressLeft": press,
        "mouthRollUpper": roll,
        "mouthRollLower": roll,
        "mouthUpperUpRight": min(1.0, e.upper_up + 0.45 * bared),
        "mouthUpperUpLeft": min(1.0, e.upper_up + 0.45 * bared),
        "mouthLowerDownRight": min(1.0, e.lower_down + 0.40 * bared),
        "mouthLowerDownLeft": min(1.0, e.lower_down + 0.40 * bared),
        "mouthShrugLower": e.shrug,
        "mouthShrugUpper": 0.5 * e.shrug,
        "cheekPuff": e.cheek_puff * closed,
        "noseSneerRight": e.sneer,
        "noseSneerLeft": e.sneer,
        "mouthRight": max(-e.mouth_side, 0.0),
        "mouthLeft": max(e.mouth_side, 0.0),
    }
    for positive, negative, amount in (
        (("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookOutRight", "eyeLookInLeft"), e.gaze_x),
        (("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight"), e.gaze_y),
    ):
        for name in positive if amount > 0 else negative:
            actions[name] = abs(amount)
    return actions
