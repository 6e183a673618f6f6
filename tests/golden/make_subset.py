"""Cut the committed subset out of the full EG3D reference set: python make_subset.py FULL_FOLDER

Tensors are copied unchanged; only whole keys are left out, so that the same tests read both sets.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

DATA = Path(__file__).parent / "data"
ALL = r".*"
STAGES = r"stage\.(depths|sigma|rgb3|weights)_.*"
OUTPUTS = (
    r"out\.(ws|ws_psi1|planes_mean|planes_rms|ray_.*|feature_mean|image_(raw|depth|crop|corner|mean|rms)|weight_total)"
)
KEPT = {
    # The super-resolution adds no noise, so its noise images are not needed.
    "ffhq512.state_fp16": r"(?!superresolution\..*noise).*",
    "ffhq512.recorded_nrr32": rf"in\..*|{OUTPUTS}|{STAGES}|out\.(feature_image|points_.*)",
    "ffhq512.det_nrr64": rf"in\..*|{OUTPUTS}|out\.(feature_image_s3|points_.*|planes_s11)|stage\.b.*",
    "ffhq512.det_nrr128": rf"(?!out\.image_raw)(in\..*|{OUTPUTS}|out\.feature_image_s5)",
    "ffhq512.grad_nrr32": ALL,
    "ffhq512.stochastic_stats_nrr32": ALL,
    "cars128_auto.ray_limits_nrr32": ALL,
    "sr_modules": r"ws|8XDC_.*",
    "parts_camera": ALL,
    "parts_layers": ALL,
    "parts_ops": ALL,
    "parts_render": ALL,
}


def main(full: Path) -> None:
    """Write the subset to `data/` beside this file."""
    DATA.mkdir(exist_ok=True)
    for name in ("TOLERANCES.json", "parts.json", "ffhq512.config.json"):
        shutil.copyfile(full / name, DATA / name)
    for name, pattern in KEPT.items():
        with safe_open(full / f"{name}.safetensors", "pt") as file:
            kept = {key: file.get_tensor(key) for key in file.keys() if re.fullmatch(pattern, key)}  # noqa: SIM118
            save_file(kept, DATA / f"{name}.safetensors", metadata=file.metadata())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
