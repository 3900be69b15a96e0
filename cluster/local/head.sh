#!/usr/bin/env bash
# Run a Ray head on this machine until Ctrl-C, for jobs: cluster/local/head.sh [options of `ray start`, such as --num-cpus 2]
#   DASHBOARD_PORT  where jobs are submitted      default: 8265
#   PORT            where other nodes join        default: 6379
# It listens on this machine only, except for Ray's own traffic: see cluster/jobs/README.md before you open anything.
set -euo pipefail

fail() { echo "head.sh: $*" >&2; exit 1; }

DASHBOARD_PORT="${DASHBOARD_PORT:-8265}"
PORT="${PORT:-6379}"

command -v ray >/dev/null || fail "no ray on the PATH; expected the project's environment; run: . .venv/bin/activate"

for name in DASHBOARD_PORT PORT; do
  python - "${!name}" <<'PYTHON' || fail "$name=${!name} cannot be listened on; stop what runs there (another Ray?), or set $name to a free port"
import socket
import sys

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left is free
try:
    listener.bind(("127.0.0.1", int(sys.argv[1])))
except (OSError, OverflowError, ValueError) as error:
    sys.exit(f"head.sh: {error}")
PYTHON
done

echo "jobs: RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD_PORT cluster/jobs/submit.sh FILE --data PATH --name NAME"
exec ray start --head --block --disable-usage-stats --port "$PORT" \
  --dashboard-host 127.0.0.1 --dashboard-port "$DASHBOARD_PORT" "$@"
