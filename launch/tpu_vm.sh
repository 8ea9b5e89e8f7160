#!/usr/bin/env bash
# Installs what is missing and trains on the TPU of this VM; on a pod, run it on every worker.
# Each worker has a checkout on its own disk and WORKDIR on a disk that all of them see.
# Run it again to continue a training. --check only prints what would run and what is missing.
#
# Usage: ./launch/tpu_vm.sh [--check] CONFIG WORKDIR [--config.section.field=value ...]
# A pod: gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="cd lensjax && \
#   ./launch/tpu_vm.sh configs/dit_flow.py /shared/run --config.parallel.hosts=tpu"

. "$(dirname "$(readlink -f "$0")")/command.sh" "$@"

# JAX ends with an error where a `tpu` of this list is not there. The order of the data is drawn on
# the CPU.
platforms="${JAX_PLATFORMS:-tpu,cpu}"
if [[ -n "$check" && "$platforms" == *tpu* ]] &&
  ! compgen -G '/dev/accel*' > /dev/null && ! compgen -G '/dev/vfio/[0-9]*' > /dev/null; then
  lacks "a TPU (/dev/accel* or /dev/vfio/*); this script runs on the TPU VM"
  needs gcloud
fi
step . launch/environment.sh requirements-tpu.txt
step export JAX_PLATFORMS="$platforms"
step exec "${command[@]}"
end_check
