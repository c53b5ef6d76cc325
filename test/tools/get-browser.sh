#!/bin/sh
# Fetches what test/browser starts: Debian's Chromium without a window, with the libraries and fonts that this machine lacks, and the
# npm packages of test/browser, which its lock file pins by their checksums. All of it is unpacked into .cache/tools/browser of this
# checkout. Nothing is installed, and no root is needed; apt's own lists and caches are neither read nor written.
set -eu

cd "$(dirname "$0")/../.."
tools=$PWD/.cache/tools
browser=$tools/browser
packages="chromium-headless-shell chromium-common fonts-inter fonts-dejavu-core"

whole() {
	cmp -s test/browser/package-lock.json "$browser/package-lock.json" &&
		"$browser/chromium" --headless --no-sandbox --disable-gpu --dump-dom data:text/html,whole 2>/dev/null | grep -q whole
}
whole && exit 0

for program in apt-get dpkg flock node npm; do
	command -v "$program" >/dev/null || {
		echo "test/tools: no $program here; tests that need a browser will be skipped" >&2
		exit 1
	}
done

# One at a time: two test runs may begin together.
mkdir -p "$tools"
exec 9>"$tools/browser.lock"
flock 9
whole && exit 0

apt=$tools/browser.apt
rm -rf "$apt" "$browser.new"
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$browser.new/root"
set -- -o Dir::State="$apt/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$apt/cache" \
	-o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3
apt-get -q "$@" update
apt-get -q "$@" install -y --download-only --reinstall --no-install-recommends $packages
for deb in "$apt"/cache/archives/*.deb; do
	dpkg -x "$deb" "$browser.new/root"
done
rm -rf "$apt"

cat >"$browser.new/fonts.conf" <<CONF
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir>$browser/root/usr/share/fonts</dir>
<cachedir>$browser/fonts</cachedir>
<alias binding="strong"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
CONF
# libpulse finds a part of itself by an absolute path, which is not there where nothing is installed.
libraries=$browser/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
cat >"$browser.new/chromium" <<RUN
#!/bin/sh
export LD_LIBRARY_PATH="$libraries:$libraries/pulseaudio" FONTCONFIG_FILE="$browser/fonts.conf"
exec "$browser/root/usr/lib/chromium/chromium-headless-shell" "\$@"
RUN
chmod +x "$browser.new/chromium"
cp test/browser/package.json test/browser/package-lock.json "$browser.new/"
(cd "$browser.new" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
rm -rf "$browser" && mv "$browser.new" "$browser"
"$browser/chromium" --version
