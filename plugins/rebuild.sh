#!/usr/bin/env bash
# Makes artifacts/*.wasm again, or with --check compares them with what the sources make. See rebuild/src/main.rs.
set -euo pipefail
cd "$(dirname "$0")"
exec cargo run --quiet --locked -p rebuild -- "$@"
