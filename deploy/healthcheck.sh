#!/usr/bin/env bash
# Whether the service in this container answers: exits 0 or 1, and prints what /health says. Needs nothing but bash.
# HEALTH_PORT where woody_server.port is another, HEALTH_PATH to ask for something else, like /healthz/readiness.
set -euo pipefail

exec 3<>"/dev/tcp/127.0.0.1/${HEALTH_PORT:-8022}"
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${HEALTH_PATH:-/health}" >&3
# A service that takes the connection and says nothing is not well.
IFS=$' \r' read -r -t 4 -u 3 _ status _ || exit 1
while read -r -t 1 -u 3 line && [ "${line%$'\r'}" != "" ]; do :; done
IFS= read -r -t 1 -u 3 body || true
echo "$status ${body:-}"
# 429 is a warning: it still does its work.
[ "$status" = 200 ] || [ "$status" = 429 ]
