# What the machine of package_life.py lives through: each "## name" begins a step, which is a script of its own.
# Variables of them all stand here.
AS_SERVICE="runuser -u attestd --"
CONFIG="--config /var/lib/attestd/attestd.toml"
TPM="--tpm swtpm:path=/shared/tpm.sock"
UNITS="attestd.service attestd-agent.service attestd-agent.socket"
pid() { systemctl show -p MainPID --value "$1"; }
state() { sha256sum /var/lib/attestd-agent/enrollment.json /etc/attestd/agent.toml /var/lib/attestd/attestd.toml; }
left() {
    find / -xdev \( -path /proc -o -path /sys -o -path /shared -o -path /var/log \) -prune -o -name '*attestd*' -print
}

## install
dpkg --force-unsafe-io -i /shared/first.deb

## users
id attestd
id attestd-agent
stat -c '%a %U %n' /var/lib/attestd /run/attestd-agent

## commands
attestd --version
attestd --help
attestd agent --help

## install-service
attestd install-service
attestd agent install-service

## isolated
mkdir /tmp/evil
echo 'raise SystemExit(9)' >/tmp/evil/click.py
PYTHONPATH=/tmp/evil attestd --help

## untouched
dpkg -V attestd
find /usr/lib/attestd -newer /var/lib/dpkg/info/attestd.list -type f

## quiet
systemctl is-enabled $UNITS || true
systemctl is-active $UNITS || true

## serve
$AS_SERVICE attestd init /var/lib/attestd --trust-domain example.org
systemctl enable --now attestd.service
systemctl status --no-pager attestd.service

## walls
grep -E 'CapEff|NoNewPrivs|Seccomp:' "/proc/$(pid attestd.service)/status"

## reload
systemctl reload attestd.service
systemctl is-active attestd.service
# The signal is sent, then the service acts.
for i in $(seq 50); do journalctl -u attestd.service --no-pager | grep -q 'certificates reloaded' && break; sleep 0.2; done
journalctl -u attestd.service --no-pager | grep -c 'certificates reloaded'

## policy
$AS_SERVICE attestd ek-roots import /shared/ek-root.pem --sha256 "$(cat /shared/ek-root.sha256)" $CONFIG
$AS_SERVICE attestd policy apply /shared/fresh.toml $CONFIG

## enroll
# The service looks at its trusted roots every few seconds.
for i in $(seq 20); do attestd agent enroll --server http://127.0.0.1:8440 $TPM && break; sleep 1; done
install -m 0644 /shared/agent.toml /etc/attestd/agent.toml

## consumer
cp /shared/consumer.service /etc/systemd/system/
systemctl daemon-reload
systemctl start --no-block consumer.service

## agent
systemctl enable attestd-agent.service
systemctl start attestd-agent.socket attestd-agent.service
systemctl is-active attestd-agent.service
stat -c '%a %n' /run/attestd-agent/workload.sock

## agent-walls
grep -E 'CapEff|CapAmb|NoNewPrivs|Seccomp:' "/proc/$(pid attestd-agent.service)/status"

## pending
sleep 2
systemctl is-active attestd-agent.target || true
test ! -e /run/consumer-started

## identity
$AS_SERVICE attestd device approve "$($AS_SERVICE attestd device list --json $CONFIG | grep -oE '[0-9a-f]{64}' | head -n 1)" $CONFIG
systemctl restart attestd-agent.service
for i in $(seq 100); do systemctl -q is-active consumer.service && break; sleep 0.2; done
systemctl is-active attestd-agent.target consumer.service
ls /run/attestd-agent/builder/

## chown
# As the head of attestd-agent.service says.
stat -L -c '%U %a' /run/attestd-agent/builder/builder.key.pem
mkdir /etc/systemd/system/attestd-agent.service.d
cat >/etc/systemd/system/attestd-agent.service.d/files.conf <<'X'
[Service]
AmbientCapabilities=CAP_CHOWN
CapabilityBoundingSet=CAP_CHOWN
SystemCallFilter=@chown
X
systemctl daemon-reload
systemctl stop attestd-agent.service
systemctl start attestd-agent.service
attestd agent status --wait 30
stat -L -c '%U %a' /run/attestd-agent/builder/builder.key.pem
runuser -u nobody -- head -n 1 /run/attestd-agent/builder/builder.key.pem

## state
state
stat -c '%U %n' /var/lib/attestd-agent/*

## upgrade
before=$(pid attestd.service)-$(pid attestd-agent.service)
dpkg --force-unsafe-io -i /shared/next.deb
dpkg-query -W attestd
echo "$before $(pid attestd.service)-$(pid attestd-agent.service)"
systemctl is-active $UNITS attestd-agent.target

## state-after
state
systemctl is-enabled $UNITS

## remove
dpkg -r attestd
systemctl is-active $UNITS || true

## left
left

## again
dpkg --force-unsafe-io -i /shared/next.deb
systemctl is-enabled $UNITS
systemctl start attestd.service attestd-agent.service
attestd agent status --wait 30
sha256sum /var/lib/attestd-agent/enrollment.json

## purge
dpkg -P attestd
rm -r /etc/systemd/system/consumer.service /etc/systemd/system/attestd-agent.service.d /tmp/evil

## left-after-purge
left

## journal
journalctl --no-pager -o cat -u attestd.service -u attestd-agent.service -u attestd-agent-ready.service
