#!/usr/bin/env bash
# Builds the images go, cpu and cuda13 with whichever of podman, buildah and docker works here; images/Containerfile says what is in
# them. Without a builder the file is only checked.
#
#   scripts/images.sh [TARGET…]   all three by default
#
# KELVIN_IMAGE is their name, ghcr.io/kelvin-ebm/kelvin by default, KELVIN_TAG the tag without the flavour, by default that of git.
# Files carry the time of the commit, so that the same commit comes to the same layers.
set -euo pipefail
cd "$(dirname "$0")/.."
image=${KELVIN_IMAGE:-ghcr.io/kelvin-ebm/kelvin}
tag=${KELVIN_TAG:-$(git describe --tags --always --dirty)}
tag=${tag#v}
epoch=$(git log -1 --format=%ct)
targets=("$@")
[[ $# -gt 0 ]] || targets=(go cpu cuda13)

${GO:-go} test ./images

builder=
for candidate in podman buildah docker; do
	if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
		builder=$candidate
		break
	fi
done
if [[ -z $builder ]]; then
	echo "images: no podman, buildah or docker works here: images/Containerfile was checked, and nothing built" >&2
	exit 0
fi
for target in "${targets[@]}"; do
	name=$image:$tag-$target
	echo "images: $name, with $builder"
	case $builder in
	docker) SOURCE_DATE_EPOCH=$epoch docker buildx build --file images/Containerfile --target "$target" --output "type=docker,name=$name,rewrite-timestamp=true" . ;;
	podman) podman build --file images/Containerfile --target "$target" --timestamp "$epoch" --tag "$name" . ;;
	buildah) buildah build --file images/Containerfile --target "$target" --timestamp "$epoch" --tag "$name" . ;;
	esac
done
