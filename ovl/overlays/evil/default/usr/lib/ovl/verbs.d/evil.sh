# Verbs of a tester that stands between another tester and the routers, and harms packets.
# shellcheck shell=dash

# evil_start INSTRUCTIONS...: treats packets that come from the tester (eth2), and with `back` or
# `both` among the words also those that come from the routers (eth1).
evil_start() {
    local device loops=evil-there words="$*"
    for device in eth1 eth2; do
        ethtool -K "$device" gro off gso off tso off tx off >/dev/null || return 1
    done
    case " $words " in *" back "*|*" both "*) loops=evil-there,evil-back ;; esac
    # No address of its own, so that nothing but traffic comes by the devices.
    echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode
    # The words are arguments.
    # shellcheck disable=SC2086
    background evil evil -loop "$loops" -seed "${EVIL_SEED:-1}" -mtu "${EVIL_MTU:-1500}" $words
    started evil grep -q ready: /var/log/evil.log || return 1
    evil_lead eth2 evil-there 90 || return 1
    case $loops in *,*) evil_lead eth1 evil-back 91 ;; esac
}

# evil_lead FROM TO TABLE: what comes in by a device goes out by another one. Packets for the node
# itself do not.
evil_lead() {
    local family
    for family in -4 -6; do
        ip "$family" route add default dev "$2" table "$3" &&
            ip "$family" rule add iif "$1" lookup "$3" || return 1
    done
}

# evil_stop: packets pass unharmed. What was held is gone.
evil_stop() {
    local family table
    for family in -4 -6; do
        for table in 90 91; do
            # The second one is there only if it was asked for.
            ip "$family" rule del lookup "$table" 2>/dev/null || true
        done
    done
    end evil
}

# evil_count NAME [back]: a counter of the program, of the way there unless it is said.
evil_count() {
    local lines report
    lines=$(wc -l </var/log/evil.log)
    kill -s USR1 "$(pid_of evil)" || return 1
    within 5 evil_told "$lines" || return 1
    report=$(tail -n 1 /var/log/evil.log)
    case ${2-there} in
        back) report=${report#*\"back\":} ;;
        *) report=${report#*\"there\":} ;;
    esac
    case $report in
        *"\"$1\":"*) ;;
        *) say "evil does not count $1"; return 1 ;;
    esac
    report=${report#*\""$1"\":}
    echo "${report%%[!0-9]*}"
}

# evil_told LINES: whether it has written more than so many.
evil_told() {
    [ "$(wc -l </var/log/evil.log)" -gt "$1" ] || { say "evil says nothing"; return 1; }
}
