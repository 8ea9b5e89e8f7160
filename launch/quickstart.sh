#!/usr/bin/env bash
# From a fresh clone to lenses: installs, builds a small data set, trains, samples, scores.
# On two CPU cores it takes 8 to 11 minutes after installation. Run it again to continue.
#
# Usage: ./launch/quickstart.sh [WORKDIR]        (default: runs/quickstart of this checkout)

here="$(dirname "$(readlink -f "$0")")"
workdir="${1:+$(readlink -m -- "$1")}"
. "$here/environment.sh" requirements.txt
workdir="${workdir:-runs/quickstart}"

# A signal to this shell alone waits for the command that runs; the next one must not follow. What a
# signal ended has status 75 or 130, which ends the script too; 75: run it again to continue.
trap 'exit 130' INT
trap 'exit 75' TERM
run() { .venv/bin/python -m lensjax.main --config=configs/quickstart.py --workdir="$workdir" "$@"; }

run --mode=train
run --mode=sample
run --mode=evaluate

cat <<END

images    $workdir/generated/images.npy (flux), labels.npy beside it
pictures  $workdir/evaluation/grid.png (real lenses above generated ones), $workdir/samples/
report    $workdir/evaluation/report.html (opens in a browser; numbers in metrics.json beside it)
curves    $workdir/samples/curves.png, or .venv/bin/tensorboard --logdir $workdir
END
