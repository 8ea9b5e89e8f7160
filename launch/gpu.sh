#!/usr/bin/env bash
# Installs what is missing and trains on all NVIDIA GPUs of this machine, in one process.
# Run it again to continue a training. --check only prints what would run and what is missing.
#
# Usage: ./launch/gpu.sh [--check] CONFIG WORKDIR [--config.section.field=value ...]

. "$(dirname "$(readlink -f "$0")")/command.sh" "$@"

# The order of the data is drawn on the CPU. JAX leaves out a `cuda` of this list without a word
# where the machine has no GPU, so the driver is asked first.
platforms="${JAX_PLATFORMS:-cuda,cpu}"
if [[ "$platforms" == *cuda* ]]; then
  needs nvidia-smi
  step nvidia-smi --list-gpus
fi
step . launch/environment.sh requirements-gpu.txt
step export JAX_PLATFORMS="$platforms"
step exec "${command[@]}"
end_check
