#!/bin/sh
# Fetches the programs that tests start but protip does not contain: Debian's prometheus and promtool, and two clients of
# WS-Management, python3-winrm and wsl, with what they need. They are unpacked into .cache/tools of this checkout. Nothing is installed, no service is started, and no root is needed; apt's own lists and caches
# of the machine are neither read nor written.
set -eu

cd "$(dirname "$0")/../.."
tools=$PWD/.cache/tools
packages="prometheus prometheus-alertmanager prometheus-node-exporter prometheus-libvirt-exporter
	python3-winrm python3-requests python3-requests-ntlm python3-ntlm-auth python3-six python3-xmltodict python3-cryptography
	python3-cffi-backend python3-urllib3 python3-idna python3-certifi python3-charset-normalizer python3-chardet
	wsl libxml2-utils libxml2 libicu72 uuid-runtime"

[ "$(cat "$tools/root/.packages" 2>/dev/null)" = "$packages" ] && exit 0

for program in apt-get dpkg; do
	command -v "$program" >/dev/null || {
		echo "test/tools: no $program here; tests that need what it fetches will be skipped" >&2
		exit 1
	}
done

mkdir -p "$tools/apt/state/lists/partial" "$tools/apt/cache/archives/partial" "$tools/deb"
fetch() {
	# The sandbox user could not read a checkout in somebody's home.
	apt-get -q -o Dir::State="$tools/apt/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$tools/apt/cache" \
		-o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 "$@"
}

fetch update
(cd "$tools/deb" && fetch download $packages)
rm -rf "$tools/root.new" && mkdir "$tools/root.new"
for deb in "$tools"/deb/*.deb; do
	dpkg -x "$deb" "$tools/root.new"
done
echo "$packages" >"$tools/root.new/.packages"
rm -rf "$tools/root" && mv "$tools/root.new" "$tools/root"
rm -rf "$tools/deb" "$tools/apt"
"$tools/root/usr/bin/prometheus" --version | head -n 1
