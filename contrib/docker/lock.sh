#!/bin/sh
# Choose anew, of all that the image installs, the newest versions that suit, with their hashes. Needs uv.
set -eu
cd "$(dirname "$0")/requirements"
choose() {
    file=$1
    shift
    uv pip compile --quiet --upgrade --generate-hashes --python-version 3.13 --python-platform linux \
        --custom-compile-command contrib/docker/lock.sh --no-annotate --output-file "$file" "$@"
}
choose daemon.txt ../../../pyproject.toml
printf 'hatchling\nsetuptools\n' | choose build.txt -
# Only the program is taken out of the SDK's wheel: what the SDK needs is not needed.
printf 'claude-agent-sdk\n' | choose claude.txt --no-deps -
