#!/usr/bin/env bash
# Measures lensjax on an accelerator, in three parts of less than ten minutes each.
#
# Usage: benchmarks/accelerator.sh speed|unet_fast|dit_fast [WORKDIRS]
#
#   speed      configs/dit_flow.py beside PyTorch: training and sampling, into benchmarks/results
#   unet_fast  trains configs/unet_fast.py and judges 200 images a class
#   dit_fast   the same of configs/dit_fast.py
#
# WORKDIRS holds the workdirs of the trainings, by default runs. A training that ten minutes do not
# end is stopped with a checkpoint; the same command goes on with it. PYTHON has lensjax, and PyTorch
# for `speed`; TORCH_PYTHON names another one for PyTorch.

set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-python3}"
part="${1:-}"
workdirs="${2:-runs}"
most_seconds=540

case "$part" in
  speed)
    torch="--torch-python=${TORCH_PYTHON:-$python}"
    timeout "$most_seconds" bash -ec '
      "$0" benchmarks/train.py "$1"
      "$0" benchmarks/sample.py "$1"
      "$0" benchmarks/sample.py "$1" --guidance=5
    ' "$python" "$torch"
    ;;
  unet_fast | dit_fast)
    run=("$python" -m lensjax.main "--config=configs/$part.py" "--workdir=$workdirs/$part")
    timeout "$most_seconds" bash -ec '"$@"; exec "$@" --mode=evaluate --config.evaluate.num_images=200' \
      "$part" "${run[@]}"
    ;;
  *)
    echo "usage: ${0##*/} speed|unet_fast|dit_fast [WORKDIRS]; got '$part'" >&2
    exit 2
    ;;
esac
