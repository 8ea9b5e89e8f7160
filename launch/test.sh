#!/usr/bin/env bash
# Installs what is missing and runs all tests. Arguments go to pytest.
#
# Usage: ./launch/test.sh [PYTEST_ARGUMENT ...]

. "$(dirname "$(readlink -f "$0")")/environment.sh" requirements.txt test

.venv/bin/python -m pytest -n 2 --dist loadfile "$@"
