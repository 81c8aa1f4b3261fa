# network_data.json, flattened by json.awk, becomes one plain line per setting:
#   link MAC MTU            nic MAC is described by the datasource (MTU may be -)
#   vlan PARENT_MAC ID MAC  a VLAN on top of it, known by its own MAC from there
#   addr MAC 4|6 IP PREFIX
#   route MAC 4|6 NETWORK PREFIX GATEWAY
#   dhcp4 MAC | slaac MAC | dhcp6 MAC
#   dns IP
#   remark TEXT             something asked for that this image does not do
# Only words that passed a check are printed, so the reader may split them.
BEGIN { FS = "\t" }

{ value[$1] = $3; n = split($1, p, "/") }
p[1] == "links" && n >= 3 { if (p[2] + 1 > links) links = p[2] + 1 }
p[1] == "networks" && n >= 3 {
    if (p[2] + 1 > networks) networks = p[2] + 1
    if (p[3] == "routes" && n >= 5 && p[4] + 1 > routes[p[2]]) routes[p[2]] = p[4] + 1
    if (p[3] == "services" && n >= 5 && p[4] + 1 > services[p[2]]) services[p[2]] = p[4] + 1
}
p[1] == "services" && n >= 3 { if (p[2] + 1 > global_services) global_services = p[2] + 1 }

function family(ip,   b, i) {
    if (ip ~ /^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$/) {
        split(ip, b, ".")
        for (i = 1; i <= 4; i++) if (length(b[i]) > 3 || b[i] > 255) return 0
        return 4
    }
    if (length(ip) < 40 && ip ~ /^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$/) return 6
    return 0
}

# Bits of a netmask in any of its notations: 24, 255.255.255.0, ffff:ffff::
function bits(mask, fam,   parts, n, i, total, v, k) {
    if (mask ~ /^[0-9]+$/) return (mask <= (fam == 4 ? 32 : 128)) ? mask : -1
    if (family(mask) != fam) return -1
    total = 0
    n = split(mask, parts, fam == 4 ? "." : ":")
    for (i = 1; i <= n; i++) {
        if (parts[i] == "") continue
        v = fam == 4 ? parts[i] + 0 : hexvalue(parts[i])
        for (k = fam == 4 ? 128 : 32768; k >= 1 && v >= k; k /= 2) { total++; v -= k }
        if (v) return -1
    }
    return total
}

function hexvalue(s,   i, n) {
    n = 0
    s = tolower(s)
    for (i = 1; i <= length(s); i++) n = n * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1
    return n
}

function is_mac(m) { return length(m) == 17 && m ~ /^([0-9a-f][0-9a-f]:)+[0-9a-f][0-9a-f]$/ }

function add_dns(prefix, how_many,   k, ip) {
    for (k = 0; k < how_many; k++) {
        ip = value[prefix k "/address"]
        if (value[prefix k "/type"] == "dns" && family(ip) && !(ip in seen)) { print "dns", ip; seen[ip] = 1 }
    }
}

END {
    for (i = 0; i < links; i++) {
        l = "links/" i "/"
        id = value[l "id"]; type = value[l "type"]
        mac = tolower(value[l "ethernet_mac_address"])
        if (type == "vlan") mac = tolower(value[l "vlan_mac_address"])
        if (type == "bond") { print "remark bonds are not supported"; continue }
        if (!is_mac(mac)) { print "remark a link has no usable MAC address"; continue }
        mac_of[id] = mac
        mtu = value[l "mtu"]
        if (mtu !~ /^[0-9]+$/ || mtu < 68 || mtu > 65535) mtu = "-"
        if (type == "vlan") {
            parent = mac_of[value[l "vlan_link"]]; vid = value[l "vlan_id"]
            if (parent == "" || vid !~ /^[0-9]+$/ || vid < 1 || vid > 4094) {
                print "remark a VLAN link is incomplete"
                delete mac_of[id]
                continue
            }
            print "vlan", parent, vid, mac
        }
        print "link", mac, mtu
    }
    for (i = 0; i < networks; i++) {
        w = "networks/" i "/"
        mac = mac_of[value[w "link"]]; type = value[w "type"]
        if (mac == "") { print "remark a network names no known link"; continue }
        if (type == "ipv4_dhcp") print "dhcp4", mac
        else if (type == "ipv6_slaac") print "slaac", mac
        else if (type == "ipv6_dhcp" || type == "ipv6_dhcpv6-stateful") print "dhcp6", mac
        else if (type == "ipv6_dhcpv6-stateless") print "slaac", mac
        else if (type == "ipv4" || type == "ipv6") {
            fam = type == "ipv4" ? 4 : 6
            ip = value[w "ip_address"]; mask = value[w "netmask"]
            if (split(ip, half, "/") == 2) { ip = half[1]; mask = half[2] }
            prefix = bits(mask, fam)
            if (family(ip) != fam || prefix < 0) { print "remark an address is not valid"; continue }
            print "addr", mac, fam, ip, prefix
            gateway = value[w "gateway"]
            if (gateway != "" && family(gateway) == fam) print "route", mac, fam, fam == 4 ? "0.0.0.0" : "::", 0, gateway
        } else { print "remark a network has an unknown type"; continue }
        for (k = 0; k < routes[i]; k++) {
            r = w "routes/" k "/"
            to = value[r "network"]; mask = value[r "netmask"]; gateway = value[r "gateway"]
            if (split(to, half, "/") == 2) { to = half[1]; mask = half[2] }
            fam = family(to); prefix = fam ? bits(mask, fam) : -1
            if (prefix < 0 || family(gateway) != fam) { print "remark a route is not valid"; continue }
            print "route", mac, fam, to, prefix, gateway
        }
        add_dns(w "services/", services[i])
    }
    add_dns("services/", global_services)
}
