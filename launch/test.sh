#!/usr/bin/env bash
# Installs what is missing, checks style and types, and runs the tests. Arguments go to pytest.
#
# Usage: ./launch/test.sh [--nightly] [PYTEST_ARGUMENT ...]
#
# --nightly runs the long tests alone and writes benchmarks/results/nightly.json.

. "$(dirname "$(readlink -f "$0")")/environment.sh" requirements.txt test

if [[ "${1:-}" == --nightly ]]; then
  exec .venv/bin/python benchmarks/nightly.py "${@:2}"
fi

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
types=$(mktemp)
trap 'rm -f "$types"' EXIT
.venv/bin/python -m mypy > "$types" 2>&1 &  # half a minute without its cache: beside the tests
checker=$!
status=0
.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" || status=$?
wait "$checker" || { status=1; cat "$types"; }
exit "$status"
