"""Who is in a data set of procedural heads: how attributes are distributed, and a contact sheet.

    python scripts/describe_heads.py --data data/heads --out docs/heads

Writes OUT.md and OUT.jpg. The sheet shows heads of another seed than the data set's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.dataset import HeadDataset
from e3dge_video.heads.sheet import contact_sheet

#: Parts of an attribute's range, and their names.
_PARTS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "gender": (("male", -0.1, 1 / 3), ("between", 1 / 3, 2 / 3), ("female", 2 / 3, 1.1)),
    "age": (("young", -0.1, 0.3), ("middle", 0.3, 0.6), ("old", 0.6, 1.1)),
    "skin_melanin": (("light", -0.1, 0.33), ("medium", 0.33, 0.5), ("dark", 0.5, 1.1)),
}
_ORIGINS = ("african", "asian", "caucasian")
#: Above this an attribute shows in a picture.
_SHOWS = 0.05


def main() -> None:
    """Count, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("heads"))
    arguments = parser.parse_args()
    data = HeadDataset(arguments.data)
    values = dict(zip(data.attribute_names, data.small("attributes").T, strict=True))
    arguments.out.with_suffix(".md").write_text(page(values, len(data), arguments.data, f"{arguments.out.stem}.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        sheet = cv2.imread(str(contact_sheet(Path(folder) / "sheet.png", seed=1)))
    cv2.imwrite(str(arguments.out.with_suffix(".jpg")), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])


def page(values: dict[str, NDArray[np.float32]], count: int, data: Path, sheet: str) -> str:
    """The report as Markdown."""
    lines = [
        "# The procedural heads",
        "",
        f"Of the {count} heads of a data set, counted by `python scripts/describe_heads.py --data {data}`. All are"
        " drawn; nobody's likeness is among them.",
        "",
        f"![Heads, turned heads with depth and normals, expressions, edits]({sheet})",
        "",
        "## Groups, percent of all heads",
        "",
        *table(["", *(name for name, *_ in _PARTS["age"]), "all ages"], group_rows(values)),
        "",
        "Young: below 32 years, old: from 56. Skin by its melanin, 0 to 1: light below 0.33, dark from 0.5."
        " Origin: the greatest of three shares. Gender, 0 to 1: male below a third, female from two thirds.",
        "",
        "## Attributes",
        "",
        *table(["", "shows in", "5 %", "25 %", "median", "75 %", "95 %"], attribute_rows(values)),
        "",
        f"Shows in: heads where its absolute value is above {_SHOWS}. The others: quantiles over all heads.",
        "",
    ]
    return "\n".join(lines)


def group_rows(values: dict[str, NDArray[np.float32]]) -> list[list[str]]:
    """Percent of all heads in each group, by age."""
    ages = [within(values["age"], low, high) for _, low, high in _PARTS["age"]]
    everybody = np.ones_like(ages[0])
    groups = {
        name: within(values[attribute], low, high)
        for attribute in ("gender", "skin_melanin")
        for name, low, high in _PARTS[attribute]
    }
    origin = np.stack([values[name] for name in _ORIGINS]).argmax(axis=0)
    groups |= {name: origin == k for k, name in enumerate(_ORIGINS)}
    return [
        [name, *(f"{100 * float((member & age).mean()):.1f}" for age in (*ages, everybody))]
        for name, member in (groups | {"all": everybody}).items()
    ]


def attribute_rows(values: dict[str, NDArray[np.float32]]) -> list[list[str]]:
    """Share in which an attribute shows, and its quantiles."""
    return [
        [
            name,
            f"{100 * float((np.abs(one) > _SHOWS).mean()):.0f} %",
            *(f"{quantile:.2f}" for quantile in np.quantile(one, (0.05, 0.25, 0.5, 0.75, 0.95))),
        ]
        for name, one in values.items()
    ]


def within(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    """Which values are in [low, high)."""
    return (values >= low) & (values < high)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


if __name__ == "__main__":
    main()
