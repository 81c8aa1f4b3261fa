# Datasources. Each one leaves the same files in $SEED, and what comes after
# does not ask which it was:
#   name instance-id hostname keys user-data vendor-data network_data
# shellcheck shell=sh

MEDIA=$RUN/media
METADATA=http://169.254.169.254

seed_reset() { rm -rf "$SEED"; mkdir -m 700 "$SEED"; }

# Public keys on standard input, one a line; anything else is dropped.
only_keys() {
    grep -E '^(ssh-(rsa|ed25519|dss)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) [A-Za-z0-9+/]+=*( |$)'
}

# decode PATTERN FLAT: all string values whose path matches, one after another.
values() {
    printf '%b\n' "$(WANTED=$1 awk -F '\t' '$1 ~ ENVIRON["WANTED"] && $2 == "string" { print $3 }' "$2")"
}

# seed_openstack DIRECTORY: from the files of openstack/latest.
seed_openstack() {
    [ -s "$1/meta_data.json" ] || return 1
    if ! json_flatten "$1/meta_data.json" >"$RUN/meta.flat" 2>"$RUN/meta.err"; then
        status metadata failed "meta_data.json: $(cat "$RUN/meta.err")"
        return 1
    fi
    json_get "$RUN/meta.flat" uuid >"$SEED/instance-id"
    json_get "$RUN/meta.flat" hostname >"$SEED/hostname"
    {
        values '^public_keys/[^/]+$' "$RUN/meta.flat"
        values '^keys/[0-9]+/data$' "$RUN/meta.flat"
    } | tr -d '\r' | only_keys | awk '!seen[$1 $2]++' >"$SEED/keys"
    [ ! -s "$1/user_data" ] || cp "$1/user_data" "$SEED/user-data"
    for file in vendor_data.json vendor_data2.json; do
        if [ ! -s "$1/$file" ] || [ -s "$SEED/vendor-data" ]; then continue; fi
        if json_flatten "$1/$file" >"$RUN/vendor.flat" 2>"$RUN/vendor.err"; then
            # The document is a script itself, or holds one as "cloud-init".
            for path in '' cloud-init; do
                json_get "$RUN/vendor.flat" "$path" >"$SEED/vendor-data"
                [ ! -s "$SEED/vendor-data" ] || break
            done
        else
            status vendor-data failed "$file: $(cat "$RUN/vendor.err")"
        fi
    done
    if [ -s "$1/network_data.json" ] &&
        ! json_flatten "$1/network_data.json" >"$SEED/network_data" 2>"$RUN/network.err"; then
        status network-data failed "network_data.json: $(cat "$RUN/network.err")"
        rm -f "$SEED/network_data"
    fi
}

seed_nocloud() {
    [ -e "$1/meta-data" ] || return 1
    if [ "$(head -c 1 "$1/meta-data")" = "{" ]; then
        json_flatten "$1/meta-data" >"$RUN/meta.flat" 2>"$RUN/meta.err" ||
            status metadata failed "meta-data: $(cat "$RUN/meta.err")"
    else
        awk -f "$LIB/yaml.awk" "$1/meta-data" >"$RUN/meta.flat"
    fi
    json_get "$RUN/meta.flat" instance-id >"$SEED/instance-id"
    json_get "$RUN/meta.flat" local-hostname >"$SEED/hostname"
    [ -s "$SEED/hostname" ] || json_get "$RUN/meta.flat" hostname >"$SEED/hostname"
    values '^public-keys(/[^/]+)*$' "$RUN/meta.flat" | only_keys >"$SEED/keys"
    [ ! -s "$1/user-data" ] || cp "$1/user-data" "$SEED/user-data"
    [ ! -s "$1/vendor-data" ] || cp "$1/vendor-data" "$SEED/vendor-data"
    [ ! -e "$1/network-config" ] || echo "network-config ignored, DHCP is used" >>"$RUN/network.remarks"
}

# with_media LABELS FUNCTION: FUNCTION on the mounted filesystem of that label.
with_media() {
    for label in $1; do
        device=''
        while read -r node tags; do
            case $tags in *"LABEL=\"$label\""*) device=${node%:} ;; esac
        done <"$RUN/blkid"
        [ -b "$device" ] || continue
        mkdir -p "$MEDIA"
        for type in iso9660 vfat; do
            mount -t "$type" -o ro,nosuid,nodev,noexec "$device" "$MEDIA" 2>>"$LOG" || continue
            "$2" "$MEDIA"
            result=$?
            umount "$MEDIA"
            [ $result -ne 0 ] || { echo "$device" >"$RUN/media-device"; return 0; }
        done
    done
    return 1
}

config_drive() { seed_openstack "$1/openstack/latest"; }

try_config_drive() {
    with_media 'config-2 CONFIG-2' config_drive || return 1
    echo "config drive ($(cat "$RUN/media-device"))" >"$SEED/name"
}

try_nocloud() {
    with_media 'cidata CIDATA' seed_nocloud || return 1
    echo "NoCloud ($(cat "$RUN/media-device"))" >"$SEED/name"
}

# fetch PATH FILE: 0 fetched, 1 nobody answers, 2 answered with an error.
# Bounded in time (by timeout: wget -T of this busybox crashes) and in size
# (ulimit -f counts blocks of 512 bytes).
fetch() {
    (ulimit -f 16384; timeout 10 wget -O "$2" "$METADATA/$1") 2>"$RUN/wget.err" && return 0
    rm -f "$2"
    log "fetch $1: $(tail -n 1 "$RUN/wget.err")"
    grep -q 'server returned error' "$RUN/wget.err" && return 2
    return 1
}

# A service may be late (neutron's agent starts with the port), but a cloud
# without one must not hold the boot up: three attempts.
fetch_patiently() {
    for _ in 1 2 3; do
        fetch "$1" "$2"
        result=$?
        [ $result -eq 1 ] || return $result
        sleep 1
    done
    return 1
}

try_openstack() {
    dir=$RUN/openstack
    rm -rf "$dir"
    mkdir -m 700 "$dir"
    fetch_patiently openstack/latest/meta_data.json "$dir/meta_data.json" || return
    for file in network_data.json user_data vendor_data.json vendor_data2.json; do
        fetch "openstack/latest/$file" "$dir/$file"
    done
    seed_openstack "$dir" || return 2
    rm -rf "$dir"
    echo "OpenStack metadata service" >"$SEED/name"
}

try_ec2() {
    fetch_patiently latest/meta-data/instance-id "$SEED/instance-id" || return
    fetch latest/meta-data/local-hostname "$SEED/hostname" || fetch latest/meta-data/hostname "$SEED/hostname"
    # The list reads "0=name"; only the number is used to ask for the key.
    if fetch latest/meta-data/public-keys/ "$RUN/key-list"; then
        { cat "$RUN/key-list"; echo; } | sed -n 's/^\([0-9][0-9]*\)=.*/\1/p' | head -n 20 | while read -r index; do
            fetch "latest/meta-data/public-keys/$index/openssh-key" "$RUN/key" && cat "$RUN/key" && echo
        done | only_keys >"$SEED/keys"
    fi
    fetch latest/user-data "$SEED/user-data"
    echo "EC2 metadata service" >"$SEED/name"
}

# The config drive may sit on a controller that is still being probed; virtio
# disks are there at once. Only where SCSI hosts exist a second is spent, and
# "cloud" looks again when the network has nothing either.
find_local() {
    tries=0
    seed_reset
    while :; do
        busybox blkid >"$RUN/blkid" 2>/dev/null
        for source in $DATASOURCES; do
            case $source in
                config-drive) try_config_drive && return 0 ;;
                nocloud) try_nocloud && return 0 ;;
            esac
        done
        [ -d /sys/class/scsi_host ] && [ -n "$(ls /sys/class/scsi_host)" ] || return 1
        tries=$((tries + 1))
        [ $tries -lt 3 ] || return 1
        sleep 0.5
    done
}

find_on_network() {
    for source in $DATASOURCES; do
        seed_reset
        case $source in
            openstack) try_openstack ;;
            ec2) try_ec2 ;;
            *) continue ;;
        esac
        case $? in
            0) return 0 ;;
            1) return 1 ;; # nobody there: the next one lives at the same address
        esac
    done
    return 1
}
