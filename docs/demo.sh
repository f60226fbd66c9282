#!/bin/bash
# `make run`: a container out of the machine's own busybox. Nothing is downloaded but what is missing, and nothing is left.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

busybox=$(PATH=$PATH:/usr/sbin:/sbin command -v busybox) || { echo "install busybox (Debian: busybox-static) first" >&2; exit 1; }
work=$(mktemp -d build/demo.XXXXXX 2>/dev/null || mktemp -d)
work=$(readlink -f "$work")
trap 'rm -rf "$work"' EXIT
if [ "$(id -u)" != 0 ] && [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    export XDG_RUNTIME_DIR=$work
fi

mkdir -p "$work"/rootfs/{bin,dev,etc,proc,sys,tmp}
cp "$busybox" "$work/rootfs/bin/busybox"
echo "root:x:0:0:root:/:/bin/sh" >"$work/rootfs/etc/passwd"
for applet in sh cat echo head hostname id ls mount ps sleep uname; do ln -s busybox "$work/rootfs/bin/$applet"; done
# A busybox that is not static brings its libraries.
{ ldd "$busybox" 2>/dev/null | grep -o '/[^ ]*' || true; } | while read -r library; do
    mkdir -p "$work/rootfs$(dirname "$library")" && cp -L "$library" "$work/rootfs$library"
done

say ocirt bundle rootfs/ bundle/ -- sh -c "'echo Hello from \$(hostname)...'"
build/ocirt bundle "$work/rootfs" "$work/bundle" -- \
    sh -c 'echo "Hello from $(hostname), $(id -un 2>/dev/null || id -u) of $(uname -sr). All that runs here:"; ps -o pid,comm,args'

say ocirt plan bundle/
build/ocirt plan "$work/bundle/"

say ocirt run bundle/
TIMEFORMAT=$'\nIt took %3R seconds, %3U + %3S of them on the processor.'
time build/ocirt run "$work/bundle/"
