#!/usr/bin/env bash
# Submit a sweep as a Ray job from the repository's folder: cluster/jobs/submit.sh FILE --data PATH --name NAME ...
set -euo pipefail
cd "$(dirname "$0")/../.."
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
exec ray job submit --working-dir . --runtime-env cluster/jobs/runtime_env.yaml -- \
  env NEUROINT_GIT_COMMIT="$commit" neuroint run "$@" --resume
