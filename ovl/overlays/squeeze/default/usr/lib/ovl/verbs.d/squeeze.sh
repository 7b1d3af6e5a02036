# The verb of a tester that makes the way to another tester narrow.
# shellcheck shell=dash

# squeeze_chain [STEPS]: leads what comes from the routers through so many links, each of which is 20
# bytes narrower than the one before. The last one leads back.
squeeze_chain() {
    local steps=${1-5} i name before
    # IPv6 wants links of 1,280 at least, and there must be a namespace to come back from.
    if ! [ "$steps" -ge 2 ] 2>/dev/null || [ "$steps" -gt 11 ]; then
        say "squeeze_chain: $steps is not 2 to 11"
        return 1
    fi
    before=
    i=1
    while [ "$i" -lt "$steps" ]; do
        name=$(printf 'sz%02d' "$i")
        squeeze_space "$name" && squeeze_link "$before" "$name" "$i" $((1500 - 20 * i)) || return 1
        before=$name
        i=$((i + 1))
    done
    squeeze_link "$before" '' "$i" $((1500 - 20 * i)) || return 1

    # Mark and table 2 lead into the chain, and only once: where it ends the packets come from
    # another device.
    iptables -t mangle -A PREROUTING -i eth1 -d 20.0.0.0/24 -j MARK --set-mark 2 &&
        ip6tables -t mangle -A PREROUTING -i eth1 -d "$PREFIX:20.0.0.0/120" -j MARK --set-mark 2 &&
        ip -4 rule add fwmark 2 lookup 2 &&
        ip -6 rule add fwmark 2 lookup 2 &&
        ip -4 route add default via 10.200.1.2 table 2 &&
        ip -6 route add default via "$PREFIX:10.200.1.2" table 2
}

# squeeze_space NAME: a network namespace that forwards.
squeeze_space() {
    # The shell in the namespace expands it.
    # shellcheck disable=SC2016
    ip netns add "$1" && ip netns exec "$1" sh -euc '
        for family in all default; do
            echo 0 >/proc/sys/net/ipv4/conf/$family/rp_filter
            echo 0 >/proc/sys/net/ipv6/conf/$family/accept_dad
        done
        echo 1 >/proc/sys/net/ipv4/ip_forward
        echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
        ip link set lo up'
}

# squeeze_link FROM TO NUMBER MTU: a link between namespaces; an empty name is the node itself. Ways
# to the source range lead on, all others back.
squeeze_link() {
    local from=$1 to=$2 i=$3 mtu=$4
    ip link add "link$i" type veth peer name "in$i" || return 1
    squeeze_end "link$i" "$from" "10.200.$i.1" "$mtu" || return 1
    squeeze_end "in$i" "$to" "10.200.$i.2" "$mtu" || return 1
    if [ -n "$from" ]; then
        ip -n "$from" route add 20.0.0.0/24 via "10.200.$i.2" &&
            ip -n "$from" route add "$PREFIX:20.0.0.0/120" via "$PREFIX:10.200.$i.2" || return 1
    fi
    if [ -n "$to" ]; then
        ip -n "$to" route add default via "10.200.$i.1" &&
            ip -n "$to" route add default via "$PREFIX:10.200.$i.1" || return 1
    fi
}

# squeeze_end DEVICE NAMESPACE ADDRESS MTU
squeeze_end() {
    local space=
    if [ -n "$2" ]; then
        ip link set "$1" netns "$2" || return 1
        space="-n $2"
    fi
    # Two words, or none.
    # shellcheck disable=SC2086
    ip $space link set "$1" mtu "$4" up &&
        ip $space address add "$3/24" dev "$1" &&
        ip $space address add "$PREFIX:$3/120" dev "$1" nodad
}
