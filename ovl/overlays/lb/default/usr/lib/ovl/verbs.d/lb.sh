# Verbs for routers with the load balancer.
# shellcheck shell=dash

: "${LB_M:=997}" "${LB_QUEUES:=2}" "${LB_TARGET_NET:=1}" "${QMODE:=iptables}"

# lb_net: the first of the networks LB_TARGET_NET that this router has an address on.
lb_net() {
    local net
    for net in $LB_TARGET_NET; do
        if [ -n "$(ip -4 address show to "192.168.$net.0/24")" ]; then
            echo "$net"
            return
        fi
    done
    return 1
}

# lb_marks NODE...: the marks of targets.
lb_marks() {
    local node
    for node; do
        echo $((100 + node))
    done
}

# lb_targets NODE...: leads the mark 100+n to node n, through a table of the same number. For nodes
# that come later, too.
lb_targets() {
    local net node family gateway
    net=$(lb_net) || { say "no address on a network of LB_TARGET_NET ($LB_TARGET_NET)"; return 1; }
    for family in -4 -6; do
        gateway=192.168.$net
        [ "$family" = -4 ] || gateway=$PREFIX:$gateway
        for node; do
            echo "rule add fwmark $((100 + node)) lookup $((100 + node))"
            echo "route add default via $gateway.$node table $((100 + node))"
        done | ip "$family" -batch - || return 1
    done
}

# lb_rules: sends what is for the virtual addresses to the queues LB_QUEUES. QMODE says how; with
# none, somebody else does it. LB_BYPASS=yes lets it pass while no lb serves the queue.
lb_rules() {
    local vip queue
    case $QMODE in
        none) ;;
        iptables)
            queue="--queue-num $LB_QUEUES"
            case $LB_QUEUES in *:*) queue="--queue-balance $LB_QUEUES" ;; esac
            [ "${LB_BYPASS-}" != yes ] || queue="$queue --queue-bypass"
            printf '*mangle\n-A PREROUTING -d %s -j NFQUEUE %s\nCOMMIT\n' \
                10.0.0.0/24 "$queue" | iptables-restore --noflush || return 1
            for vip in 1000::/120 "$PREFIX:10.0.0.0/120"; do
                printf '*mangle\n-A PREROUTING -d %s -j NFQUEUE %s\nCOMMIT\n' "$vip" "$queue"
            done | ip6tables-restore --noflush
            ;;
        nft)
            queue=$(echo "$LB_QUEUES" | tr : -)
            [ "${LB_BYPASS-}" != yes ] || queue="$queue bypass"
            # Before the kernel would put fragments together. nft wants the last 32 bits in hex.
            nft -f - <<END || { say "QMODE=nft: this kernel or nft does not take the rules"; return 1; }
table inet ovl-lb {
    chain virtual-addresses {
        type filter hook prerouting priority -450
        ip daddr 10.0.0.0/24 queue num $queue
        ip6 daddr { 1000::/120, $PREFIX:a00:0/120 } queue num $queue
    }
}
END
            ;;
        *)
            say "QMODE=$QMODE: not one of iptables, nft, none"
            return 1
            ;;
    esac
}

# lb_table: makes the table with all cluster nodes as targets.
lb_table() {
    local room=200
    [ "$LB_M" -ge "$room" ] || room=$LB_M
    # The words of the variable and the numbers are arguments.
    # shellcheck disable=SC2046,SC2086
    shm-tool init --m "$LB_M" --n "$room" --force ${LB_INIT-} || return 1
    # shellcheck disable=SC2046,SC2086
    shm-tool activate $(lb_marks $NODES)
}

# lb_start OPTIONS...: starts lb and waits until it serves its queues.
lb_start() {
    # The words of the variable are arguments.
    # shellcheck disable=SC2086
    background lb lb --queue "$LB_QUEUES" ${LBOPT-} "$@"
    started lb grep -q ready: /var/log/lb.log
}

# lb_stop [SIGNAL]: ends lb; the table and its counters stay.
lb_stop() {
    end lb "$@"
}

# lb_count NAME: a counter of lb, in sum over all queues.
lb_count() {
    local stats
    stats=$(shm-tool stats --json) || return 1
    stats=${stats#*\"sum\":}
    case $stats in
        *"\"$1\":"*) ;;
        *) say "lb does not count $1"; return 1 ;;
    esac
    stats=${stats#*\""$1"\":}
    echo "${stats%%[!0-9]*}"
}
