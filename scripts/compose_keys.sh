#!/usr/bin/env bash
# Writes the key files that docker-compose.yml mounts, once. They are never overwritten: without the old pseudonym key
# no account is recognised again, and without the old vault key nobody can be found.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p secrets
chmod 700 secrets # the files must be readable inside the containers, so the folder is closed instead
for name in pseudonym vault; do
  file=secrets/$name.key
  [ -e "$file" ] && { printf 'keys: %s is there already\n' "$file"; continue; }
  printf 'k1:%s\n' "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >"$file"
  chmod 444 "$file"
  printf 'keys: wrote %s\n' "$file"
done
