#!/usr/bin/env bash
# Makes .venv in the checkout from the lock files. Needs Python 3.11 or newer with venv; brings everything else itself.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"; else return 1; fi
}

install_or_explain() { # the apt packages that Python needs here
  if command -v apt-get >/dev/null; then
    say "installing $* with apt"
    as_root env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends $* >/dev/null" && return 0
  fi
  say "please install it, then run make setup again:  sudo apt-get update && sudo apt-get install -y $*" >&2
  exit 1
}

python=$(find_python) || { say "no Python 3.11 or newer found"; install_or_explain python3 python3-venv; python=$(find_python) || { say "this system's python3 is too old: install Python 3.11 or newer and set PYTHON=/path/to/it" >&2; exit 1; }; }

if ! { [ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; then
  say "creating .venv with $("$python" --version)"
  if ! "$python" -m venv --clear .venv >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    install_or_explain "python${version}-venv"
    "$python" -m venv --clear .venv
  fi
fi

if [ -x .venv/bin/uv ]; then
  uv=.venv/bin/uv
elif command -v uv >/dev/null 2>&1; then
  uv=$(command -v uv)
else
  say "bringing uv into .venv"
  .venv/bin/python -m pip install --quiet "$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements-dev.lock)"
  uv=.venv/bin/uv
fi

say "installing the locked dependencies"
export VIRTUAL_ENV=$PWD/.venv
# Compiled now (3 s), and not in each process: where PYTHONDONTWRITEBYTECODE is set, as in many images, a worker needs 1.8 s
# instead of 0.7 s to be imported, every time.
"$uv" pip sync --quiet --require-hashes --compile-bytecode requirements-dev.lock
uv=.venv/bin/uv
"$uv" pip install --quiet --no-deps --editable .
.venv/bin/python -m compileall -q -j 0 detectors streams
say "ready: .venv ($(.venv/bin/python --version))"
