# Sourced by the other scripts: makes .venv with Python 3.11 or newer and installs what is missing.
# Usage: . launch/environment.sh REQUIREMENTS_FILE [EXTRA]

set -euo pipefail
cd -- "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." > /dev/null

# Newer Pythons come last: not every package has files for them yet. ensurepip is missing where
# Debian's python3-venv is.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
      2> /dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "lensjax needs Python 3.11 or newer with venv (Debian: python3-venv); set PYTHON to its path" >&2
  return 1
}

usable_environment() {
  .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

# The packages are installed again when a file that names them has changed.
install_missing() {
  local requirements="$1" extra="$2" wanted marker
  marker=".venv/installed-$(basename "$requirements")${extra:+-$extra}"
  wanted=$(cat "$requirements" pyproject.toml | cksum)
  if [[ -f "$marker" && "$(cat "$marker")" == "$wanted" ]]; then
    return
  fi
  echo "installing $requirements${extra:+ and the extra $extra} into .venv"
  # Twice quiet: pip's warnings would bury lensjax's own lines; its errors are still shown.
  .venv/bin/python -m pip install --quiet --quiet --upgrade pip
  .venv/bin/python -m pip install --quiet --quiet -r "$requirements" -e ".${extra:+[$extra]}"
  echo "$wanted" > "$marker"
}

if ! usable_environment; then
  python_found=$(find_python)
  "$python_found" -m venv --clear .venv
fi
install_missing "$1" "${2:-}"
# Huge pages: on CPU, XLA's fresh buffers are then a fifth to a quarter cheaper.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
