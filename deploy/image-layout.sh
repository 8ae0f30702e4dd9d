#!/usr/bin/env bash
# Lays out what the last stage of deploy/Dockerfile adds to its base, without a container: for tests, and for hosts that
# have none. Does what the Dockerfile's own COPY and RUN lines say, and fails at a line that it doesn't know.
#
#   deploy/image-layout.sh BINARY [FOLDER]    BINARY stands for what the build stage makes; FOLDER is target/image by default
#
# Owners are set only by root: others get the same tree with everything their own, and are told so.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DOCKERFILE="deploy/Dockerfile"

fail() {
    echo "image-layout: $*" >&2
    exit 1
}

[ $# -ge 1 ] || fail "say which binary to put in"
readonly BINARY="$1"
readonly ROOT="${2:-target/image}"
[ -x "$BINARY" ] || fail "$BINARY is no program; build it first: cargo build --bin machinegun"
# A tree of another build would pass for this one's.
if [ -e "$ROOT" ] && [ -n "$(ls -A "$ROOT")" ]; then
    [ -x "$ROOT/opt/machinegun/bin/machinegun" ] || fail "$ROOT holds something else; name an empty folder"
    rm -rf "$ROOT"
fi
mkdir -p "$ROOT"
# Whoever runs the image walks through its root.
chmod 755 "$ROOT"

# COPY: a file of the build stage, or of this folder.
copy() {
    local from="" mode=644 arguments=()
    for word in "$@"; do
        case "$word" in
            --from=*) from="${word#--from=}" ;;
            --chmod=*) mode="${word#--chmod=}" ;;
            --*) fail "COPY $word is not known here" ;;
            *) arguments+=("$word") ;;
        esac
    done
    [ "${#arguments[@]}" = 2 ] || fail "COPY of one file only: $*"
    local source="${arguments[0]}"
    case "$from:$source" in
        build:/machinegun) source="$BINARY" ;;
        # The builder's certificates are this host's here.
        build:/etc/ssl/*) [ -e "$source" ] || { echo "image-layout: $source is left out: this host has none" >&2; return; } ;;
        build:*) fail "COPY --from=build $source is not known here" ;;
        :*) [ -f "$source" ] || fail "$source is not here" ;;
        *) fail "COPY --from=$from is not known here" ;;
    esac
    install -D -m "$mode" "$source" "$ROOT${arguments[1]}"
}

# RUN: only the making of folders.
run() {
    [ "$1 $2" = "install -d" ] || fail "RUN $* is not known here"
    local options=() folders=()
    shift 2
    while [ $# -gt 0 ]; do
        case "$1" in
            -o | -g)
                if [ "$(id -u)" = 0 ]; then
                    options+=("$1" "$2")
                else
                    echo "image-layout: not root, so not owned by $2 but by $(id -u)" >&2
                fi
                shift 2
                ;;
            /*) folders+=("$ROOT$1"); shift ;;
            *) fail "RUN install -d $1 is not known here" ;;
        esac
    done
    install -d "${options[@]}" "${folders[@]}"
}

# The last stage, its lines put together.
stage="$(sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' "$DOCKERFILE" | awk '/^FROM /{text=""} {text=text $0 "\n"} END{printf "%s", text}')"
while IFS= read -r line; do
    # Words are split on purpose: none of these lines quotes anything.
    # shellcheck disable=SC2086
    case "$line" in
        "" | "#"* | "FROM "*) ;;
        "COPY "*) copy ${line#COPY } ;;
        "RUN "*) run ${line#RUN } ;;
        # What the image says of how it is run.
        "WORKDIR "* | "VOLUME "* | "EXPOSE "* | "USER "* | "STOPSIGNAL "* | "HEALTHCHECK "* | "ENTRYPOINT "* | "CMD "*) ;;
        *) fail "a line that is not known here: $line" ;;
    esac
done <<<"$stage"
echo "$ROOT"
