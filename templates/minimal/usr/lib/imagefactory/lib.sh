# Shared by the scripts of this directory; read with "." and nothing more.
# Whatever comes from a datasource is hostile: it is never evaluated, never
# becomes a path, and is filtered before it reaches the console.
# shellcheck shell=sh disable=SC2034  # the variables are for those who read this

LIB=/usr/lib/imagefactory
RUN=/run/imagefactory
STATE=/var/lib/imagefactory
SEED=$STATE/seed
LOG=/var/log/imagefactory.log

umask 022
export PATH=/usr/sbin:/usr/bin LC_ALL=C

# Our own file, yet read as data: a typing error in it must not stop the boot.
DEFAULT_USER=cloud CONSOLE_PASSWORD_HASH='' HOSTNAME=localhost
DATASOURCES='config-drive nocloud openstack ec2'
while IFS='=' read -r key value; do
    case $key in
        DEFAULT_USER) DEFAULT_USER=$value ;;
        CONSOLE_PASSWORD_HASH) CONSOLE_PASSWORD_HASH=$value ;;
        HOSTNAME) HOSTNAME=$value ;;
        DATASOURCES) DATASOURCES=$value ;;
    esac
done </etc/imagefactory/config

# Under emulation a program costs 50 ms to start, a builtin nothing. That is why
# the functions below do with what the shell has.

uptime_now() { read -r uptime _ </proc/uptime; }

# Every terminal that the kernel prints to, such as tty0 and ttyS0.
consoles() {
    read -r active </sys/class/tty/console/active || active=console
    echo "$active"
}

# A file to the log and to all consoles. A terminal that nobody reads must not
# hold the boot up.
tell() {
    cat "$1" >>"$LOG"
    for console in $(consoles); do
        [ -c "/dev/$console" ] || continue
        # stty waits until all is sent: a getty that starts throws away what is not.
        timeout 5 cat "$1" >"/dev/$console" && timeout 5 stty -F "/dev/$console" opost
    done 2>/dev/null
}

log() {
    uptime_now
    printf '%s %s\n' "$uptime" "$*" >>"$LOG"
}

# status NAME ok|warn|failed TEXT: one line of the summary. The text may hold
# what a datasource said: imagefactory-status cleans it before it is shown.
status() {
    status_name=$1 verdict=$2
    shift 2
    printf '%s\t%s\n' "$verdict" "$*" >"$RUN/status/$status_name"
    log "$status_name: $verdict: $*"
}

# json_flatten FILE >FLAT; see json.awk; its time is linear in the size.
json_flatten() {
    [ "$(wc -c <"$1")" -le 1048576 ] || { echo "json: larger than 1 MiB" >&2; return 1; }
    { cat "$1"; echo; } | awk -f "$LIB/json.awk"
}

# json_get FLAT PATH: the value, as it was written by the sender.
json_get() {
    found=''
    while IFS='	' read -r path type value; do
        if [ "$path" = "$2" ] && [ "$type" != literal ]; then found=$value; fi
    done <"$1"
    printf '%b' "$found"
}
