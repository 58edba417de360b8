#!/usr/bin/env bash
# Installs what building, testing and the demo need and this machine lacks; with the argument "contract" also what the contract
# test needs, with "search" an OpenSearch and what runs it.
# Idempotent: with everything there it does nothing and needs neither root nor the network.
#
# Debian 12's own Go is too old for the modules used here. The toolchain is itself a Go module, verified by the checksum database,
# which any Go can download; it goes to the module cache and .cache/go points to it. The Makefile puts .cache/go/bin first in PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
want_go=1.26.8

say() { printf 'deps: %s\n' "$*" >&2; }

need=()
command -v ovs-vswitchd >/dev/null || [ -x /usr/sbin/ovs-vswitchd ] || need+=(openvswitch-switch)
command -v ip >/dev/null || [ -x /usr/sbin/ip ] || need+=(iproute2)
command -v ethtool >/dev/null || [ -x /usr/sbin/ethtool ] || need+=(ethtool)
command -v ping >/dev/null || need+=(iputils-ping)
command -v sysctl >/dev/null || [ -x /usr/sbin/sysctl ] || need+=(procps)
command -v curl >/dev/null || need+=(curl)
[ -e /etc/ssl/certs/ca-certificates.crt ] || need+=(ca-certificates)
command -v tcpdump >/dev/null || [ -x /usr/sbin/tcpdump ] || need+=(tcpdump) # readers that are not ours say what taps delivered
command -v tshark >/dev/null || need+=(tshark)
command -v gcc >/dev/null || need+=(gcc libc6-dev) # go test -race links with it

# The contract test is Python's; its packages are pinned and go to .cache.
venv=.cache/contract
need_venv=
if [ "${1:-}" = contract ] && ! cmp -s test/contract/requirements.txt "$venv/requirements.txt"; then
	need_venv=1
	python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3 python3-venv)
fi

# OpenSearch is a Maven artefact; Maven verifies its checksum. Version 3 needs a newer Java than Debian 12 has, and is used where there
# is one.
search_versions=()
if [ "${1:-}" = search ]; then
	scripts/java.sh 2 >/dev/null || need+=(openjdk-17-jre-headless)
	search_versions=(2.19.4)
	! scripts/java.sh 3 >/dev/null || search_versions+=(3.3.2)
	for v in "${search_versions[@]}"; do
		[ -e ".cache/opensearch/opensearch-$v.zip" ] || command -v mvn >/dev/null || { need+=(maven); break; }
	done
fi

go_ok() { command -v "$1" >/dev/null && "$1" version 2>/dev/null | awk '{split(substr($3,3),v,"."); exit !(v[1]>1 || v[2]>=26)}'; }
need_go=
if ! go_ok go && ! go_ok .cache/go/bin/go; then
	need_go=1
	command -v go >/dev/null || need+=(golang-go)
fi

if [ ${#need[@]} -gt 0 ]; then
	sudo=
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || { say "these Debian packages are missing and need root: ${need[*]}"; exit 1; }
		sudo=sudo
	fi
	say "installing ${need[*]}"
	export DEBIAN_FRONTEND=noninteractive
	$sudo apt-get update -qq
	$sudo apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

if [ -n "$need_venv" ]; then
	say "installing $(grep ^schemathesis test/contract/requirements.txt) to $venv"
	python3 -m venv --clear "$venv"
	"$venv/bin/pip" install -q --disable-pip-version-check --no-deps -r test/contract/requirements.txt
	cp test/contract/requirements.txt "$venv/requirements.txt" # last: with it, all is there
fi

for v in "${search_versions[@]}"; do
	[ ! -e ".cache/opensearch/opensearch-$v.zip" ] || continue
	say "fetching OpenSearch $v"
	mvn -q -B dependency:copy "-Dartifact=org.opensearch.distribution.integ-test-zip:opensearch:$v:zip" \
		-DoutputDirectory="$PWD/.cache/opensearch" >&2
done

if [ -n "$need_go" ]; then
	case "$(uname -m)" in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	*) say "no Go $want_go for $(uname -m) here: install Go 1.26 or later by hand"; exit 1 ;;
	esac
	say "fetching the Go $want_go toolchain"
	mkdir -p .cache
	dir=$(cd /tmp && go mod download -json "golang.org/toolchain@v0.0.1-go$want_go.linux-$arch" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	[ -n "$dir" ] || { say "the Go toolchain could not be downloaded"; exit 1; }
	# Module zips carry no permission bits and the module cache is read-only.
	chmod u+w "$dir"/bin "$dir"/bin/* "$dir"/pkg/tool/*/*
	chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/*
	ln -sfn "$dir" .cache/go
fi
