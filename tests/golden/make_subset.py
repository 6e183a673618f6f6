"""Cut the committed subsets out of the full reference sets: python make_subset.py FOLDER_OF_THE_FULL_SETS [SET ...]

Tensors are copied unchanged; only whole keys are left out, so that the same tests read both. Without names of sets
(`eg3d`, `stylesdf`, `e3dge`), all are cut.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
ALL = r".*"
STAGES = r"stage\.(depths|sigma|rgb3|weights)_.*"
OUTPUTS = (
    r"out\.(ws|ws_psi1|planes_mean|planes_rms|ray_.*|feature_mean|image_(raw|depth|crop|corner|mean|rms)|weight_total)"
)
COPIED = {
    "eg3d": ("TOLERANCES.json", "parts.json", "ffhq512.config.json"),
    "stylesdf": ("full_1024_formula.json",),
    "e3dge": ("hybrid_formula.json", "units_formula.json", "metrics_formula.json"),
}
KEPT = {
    "eg3d": {
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
    },
    "stylesdf": {
        "cameras": ALL,
        "mesh": ALL,
        "full_1024_formula": ALL,
        # Every case by its images and surface points; of what lies before them, what they cannot tell.
        "renderer_small": r"(in|out|state|trunc.*|loss)\..*|.*\.(rgb|xyz|bg_weight|t_rand|noise_n01)"
        r"|geom\.(rays_d|viewdirs_world)|infer\.(features|sdf)|eik\.eikonal|sphereinit\.target",
        "full_small": r"(?!infer\.(rgb_b0|features|sdf_b0|xyz|act\.conv)).*",
    },
    "e3dge": {
        "geometry_small": ALL,
        "metrics_formula": ALL,
        "units_formula": ALL,
        # Of the whole model, which is large, what the other cases cannot tell costs two more minutes.
        "hybrid_formula": r"(?!novel\.|self\.rgb).*",
    },
}


def main(full: Path, names: list[str]) -> None:
    """Write the subsets to `SET/data` beside this file."""
    for name in names or list(KEPT):
        data = HERE / name / "data"
        data.mkdir(exist_ok=True)
        for file_name in COPIED[name]:
            shutil.copyfile(full / name / file_name, data / file_name)
        for file_name, pattern in KEPT[name].items():
            with safe_open(full / name / f"{file_name}.safetensors", "pt") as file:
                kept = {key: file.get_tensor(key) for key in file.keys() if re.fullmatch(pattern, key)}  # noqa: SIM118
                save_file(kept, data / f"{file_name}.safetensors", metadata=file.metadata())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
