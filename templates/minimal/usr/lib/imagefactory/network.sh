# Network: DHCP on every NIC, or what network_data.json asks for.
# shellcheck shell=sh

# The NICs that are hardware: no lo, no tunnels.
nics() {
    for dir in /sys/class/net/*; do
        [ -e "$dir/device" ] && echo "${dir##*/}"
    done
}

nic_of_mac() {
    for dir in /sys/class/net/*; do
        read -r address <"$dir/address"
        if [ "$address" = "$1" ]; then echo "${dir##*/}"; return; fi
    done
    return 1
}

# In the foreground it never gives up, and the pid in the file never changes:
# tempest sends it USR1 to renew the lease.
start_dhcp() {
    [ -e "/run/udhcpc.$1.pid" ] && kill -0 "$(cat "/run/udhcpc.$1.pid")" 2>/dev/null && return
    : >"$RUN/dhcp.$1"
    ip link set "$1" up
    setsid udhcpc -f -i "$1" -p "/run/udhcpc.$1.pid" -s "$LIB/dhcp-event" \
        -t 4 -T 2 -A 5 -O staticroutes -O mtu -x hostname:"$(hostname)" >>"$LOG" 2>&1 </dev/null &
}

stop_dhcp() {
    [ -e "/run/udhcpc.$1.pid" ] && kill "$(cat "/run/udhcpc.$1.pid")" 2>/dev/null
    rm -f "/run/udhcpc.$1.pid" "$RUN/dhcp.$1"
}

write_resolv_conf() {
    cat "$RUN"/dns.* 2>/dev/null | awk '!seen[$0]++' >"$RUN/.resolv.conf.$$"
    cat "$RUN/.resolv.conf.$$" >/etc/resolv.conf
    rm -f "$RUN/.resolv.conf.$$"
}

# apply_network_data FLAT: false if it describes no network at all.
apply_network_data() {
    awk -f "$LIB/netdata.awk" "$1" >"$RUN/network.plan"
    grep -qE '^(addr|dhcp4|dhcp6|slaac) ' "$RUN/network.plan" || return 1
    dhcp4=" $(sed -n 's/^dhcp4 //p' "$RUN/network.plan" | tr '\n' ' ')"
    : >"$RUN/dns.netdata"
    while read -r what mac a b c d; do
        case $what in
            dns) echo "nameserver $mac" >>"$RUN/dns.netdata"; continue ;;
            remark) echo "$mac $a $b $c $d" >>"$RUN/network.remarks"; continue ;;
        esac
        nic=$(nic_of_mac "$mac") || { echo "no NIC with MAC $mac" >>"$RUN/network.remarks"; continue; }
        case $what in
            link)
                : >"$RUN/planned.$nic"
                [ "$a" = - ] || ip link set "$nic" mtu "$a"
                ip link set "$nic" up
                ;;
            vlan)
                modprobe -q 8021q
                ip link set "$nic" up
                ip link add link "$nic" name "vlan$a" type vlan id "$a" &&
                    ip link set "vlan$a" address "$b"
                ;;
            dhcp4) start_dhcp "$nic" ;;
            dhcp6) echo "$nic: DHCPv6 addresses are not supported" >>"$RUN/network.remarks" ;;
            slaac) sysctl -q -w "net.ipv6.conf.$nic.accept_ra=1" ;;
            addr)
                case $dhcp4 in *" $mac "*) ;; *) [ "$a" = 6 ] || stop_dhcp "$nic" ;; esac
                ip "-$a" addr add "$b/$c" dev "$nic"
                ;;
            route) ip "-$a" route replace "$b/$c" via "$d" dev "$nic" ;;
        esac 2>>"$LOG" || echo "$what $nic $b failed" >>"$RUN/network.remarks"
    done <"$RUN/network.plan"
    write_resolv_conf
}

network_local() {
    for nic in $(nics); do ip link set "$nic" up; done
    if [ -s "$SEED/network_data" ] && apply_network_data "$SEED/network_data"; then
        log "network: as network_data.json says"
    else
        for nic in $(nics); do start_dhcp "$nic"; done
    fi
}

# True as soon as a NIC has an address that a metadata service can answer.
wait_for_address() {
    [ -n "$(nics)" ] || return 1
    tries=0
    until ip -4 -o addr show scope global 2>/dev/null | grep -q .; do
        tries=$((tries + 1))
        [ $tries -lt 75 ] || return 1
        sleep 0.2
    done
}

network_status() {
    list=$(nics)
    [ -n "$list" ] || { status network warn "no network interface"; return; }
    ip -o addr >"$RUN/addresses"
    ip -4 route >"$RUN/routes"
    for nic in $list; do
        address=$(awk -v nic="$nic" '$2 == nic && $3 == "inet" { printf "%s ", $4 }' "$RUN/addresses")
        gateway=$(awk -v nic="$nic" '$1 == "default" && $5 == nic { print $3; exit }' "$RUN/routes")
        how=static
        [ -e "$RUN/dhcp.$nic" ] && how=dhcp
        if [ -n "$address" ]; then
            status "network.$nic" ok "$nic $address${gateway:+via $gateway }$how"
        elif ! read -r carrier <"/sys/class/net/$nic/carrier" || [ "$carrier" != 1 ]; then
            status "network.$nic" warn "$nic has no link"
        elif [ "$how" = dhcp ]; then
            status "network.$nic" warn "$nic no DHCP answer yet, still asking"
        else
            status "network.$nic" ok "$nic no IPv4 address asked for"
        fi
    done
    address=$(awk '$3 == "inet6" && !/ scope (link|host)/ { printf "%s %s ", $2, $4 }' "$RUN/addresses")
    status ipv6 ok "${address:-link-local only}"
    servers=$(awk '$1 == "nameserver" { printf "%s ", $2 }' /etc/resolv.conf)
    status dns ok "${servers:-none given}"
    if [ -s "$RUN/network.remarks" ]; then
        status network-data warn "$(sort -u "$RUN/network.remarks" | tr '\n' ';')"
    fi
}
