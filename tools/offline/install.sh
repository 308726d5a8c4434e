#!/bin/sh
# Installs this bundle into a folder of its own, beside the machine's torch and numpy, which stay as they are.
#   sh install.sh FOLDER [PYTHON]
# Then run the lines that it prints. To remove everything, delete FOLDER.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: sh install.sh FOLDER [PYTHON]" >&2; exit 2; }
python=${2:-python3}
mkdir -p "$1"
target=$(cd "$1" && pwd)

"$python" - "$here/machine.json" <<'PYTHON'
import importlib.util, json, sys
wanted = json.load(open(sys.argv[1]))
here = ".".join(map(str, sys.version_info[:2]))
if here != wanted["python"]:
    sys.exit(
        f"error: this bundle needs Python {wanted['python']}, and this is {here}. "
        f"Run: sh install.sh FOLDER /path/to/python{wanted['python']}"
    )
missing = [name for name, module in wanted["assumed"].items() if importlib.util.find_spec(module) is None]
if missing:
    sys.exit(
        "error: this machine has no " + ", ".join(missing) + ", and the bundle does not contain it. List this machine's "
        "packages with `python3 -m pip list --format=freeze > machine.txt`, then build the bundle again with "
        "--machine machine.txt."
    )
PYTHON

"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
    --target "$target/site" "$here"/wheels/*.whl
mkdir -p "$target/datasets" "$target/weights"
tar -xzf "$here/checkout.tar.gz" -C "$target"
if [ -f "$here/data.tar" ]; then tar -xf "$here/data.tar" -C "$target/datasets"; fi
if [ -d "$here/weights" ]; then cp "$here"/weights/* "$target/weights/"; fi

echo "export PYTHONPATH=$target/site"
echo "export FASTREID_DATASETS=$target/datasets"
