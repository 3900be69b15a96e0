#!/usr/bin/env bash
# Start an MLflow tracking server. Everything is set by environment variables:
#   BACKEND        database URI            default: SQLite in ./results/mlflow.db
#   ARTIFACTS      folder or s3://bucket   default: ./results/mlartifacts
#   HOST, PORT     where it listens        default: 127.0.0.1, 5000
#   ALLOWED_HOSTS  names under which clients may reach it, comma-separated; default: this machine and private addresses
# Arguments are handed on to `mlflow server` (--workers 1, --app-name basic-auth, ...).
set -euo pipefail

fail() { echo "server.sh: $*" >&2; exit 1; }

RESULTS="$PWD/results"
BACKEND="${BACKEND:-sqlite:///$RESULTS/mlflow.db}"
ARTIFACTS="${ARTIFACTS:-$RESULTS/mlartifacts}"
HOST="${HOST:-127.0.0.1}"
PORT="${PORT:-5000}"

command -v mlflow >/dev/null || fail "no mlflow on the PATH; expected the project's environment; run: . .venv/bin/activate"
[[ "$PORT" =~ ^[0-9]{1,5}$ ]] && ((10#$PORT >= 1 && 10#$PORT <= 65535)) || fail "PORT=$PORT is no port; expected a number from 1 to 65535; set PORT to one that is free"

reason=$(python - "$HOST" "$PORT" 2>&1 <<'PYTHON'
import socket
import sys

try:
    listener = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left is free
    listener.bind((sys.argv[1], int(sys.argv[2])))
except OSError as error:
    sys.exit(error.strerror)
PYTHON
) || fail "cannot listen on $HOST:$PORT ($reason); expected a free port; stop what runs there, or set PORT to another one"

case "$BACKEND" in sqlite:////*) mkdir -p "$(dirname "${BACKEND#sqlite:///}")" ;; esac

export MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # runs are only tracked here; the job runner takes 235 MB
exec mlflow server --backend-store-uri "$BACKEND" --artifacts-destination "$ARTIFACTS" \
  --host "$HOST" --port "$PORT" ${ALLOWED_HOSTS:+--allowed-hosts "$ALLOWED_HOSTS"} "$@"
