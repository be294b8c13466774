#!/usr/bin/env bash
# Resolves the dependencies of pyproject.toml into two lock files that hold versions and hashes for every platform:
# requirements.lock is the production install, requirements-dev.lock adds the demo extra and the development tools.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || uv=$(command -v uv)
args=(pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11
  --custom-compile-command "make lock")
"$uv" "${args[@]}" "$@" pyproject.toml --all-extras --group dev -o requirements-dev.lock
"$uv" "${args[@]}" "$@" pyproject.toml --constraint requirements-dev.lock -o requirements.lock
