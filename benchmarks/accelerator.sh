#!/usr/bin/env bash
# Measures lensjax on an accelerator, in parts of less than ten minutes each.
#
# Usage: benchmarks/accelerator.sh speed|unet_fast|dit_fast|dit_flow [WORKDIRS]
#
#   speed      NanoDiT beside PyTorch, training and sampling, into benchmarks/results
#   unet_fast  trains configs/unet_fast.py and judges 200 images a class
#   dit_fast   the same of configs/dit_fast.py
#   dit_flow   the same of configs/dit_flow.py, which takes many such parts
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
end=$((SECONDS + 540))

# Runs a program of lensjax's Python until the part's time is over.
run() {
  timeout "$((end > SECONDS ? end - SECONDS : 1))" "$python" "$@"
}

case "$part" in
  speed)
    torch="--torch-python=${TORCH_PYTHON:-$python}"
    run benchmarks/train.py "$torch"
    run benchmarks/sample.py "$torch"
    run benchmarks/sample.py "$torch" --guidance=5 --results=benchmarks/results/guidance_5
    ;;
  unet_fast | dit_fast | dit_flow)
    main=(-m lensjax.main "--config=configs/$part.py" "--workdir=$workdirs/$part")
    run "${main[@]}"
    run "${main[@]}" --mode=evaluate --config.evaluate.num_images=200
    ;;
  *)
    echo "usage: ${0##*/} speed|unet_fast|dit_fast|dit_flow [WORKDIRS]; got '$part'" >&2
    exit 2
    ;;
esac
