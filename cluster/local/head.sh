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
  [[ "${!name}" =~ ^[0-9]{1,5}$ ]] && ((10#${!name} >= 1 && 10#${!name} <= 65535)) || fail "$name=${!name} is no port; expected a number from 1 to 65535; set $name to one that is free"
  reason=$(python - "${!name}" 2>&1 <<'PYTHON'
import socket
import sys

try:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left is free
    listener.bind(("127.0.0.1", int(sys.argv[1])))
except OSError as error:
    sys.exit(error.strerror)
PYTHON
) || fail "$name=${!name} cannot be listened on ($reason); expected a free port; stop what runs there (another Ray?), or set $name to another one"
done
[[ "$PORT" != "$DASHBOARD_PORT" ]] || fail "PORT and DASHBOARD_PORT are both $PORT; expected two ports; set one of them to another one"

echo "jobs: RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD_PORT cluster/jobs/submit.sh FILE --data PATH --name NAME"
exec ray start --head --block --disable-usage-stats --port "$PORT" \
  --dashboard-host 127.0.0.1 --dashboard-port "$DASHBOARD_PORT" "$@"
