# Verbs for SCTP servers and clients.
# shellcheck shell=dash

# Each family has one virtual address, and each of them a way of its own.
: "${SCTP_VIP4:=10.0.0.1}" "${SCTP_VIP6:=1000::81}"

# sctp_server OPTIONS...: a server on both virtual addresses; waits until it listens.
sctp_server() {
    background sctpt sctpt server --addr "$SCTP_VIP4,$SCTP_VIP6" --log 6 "$@"
    started sctpt grep -q 'Accepting connections' /var/log/sctpt.log
}

# sctp_probe OPTIONS...: whether a server answers, from addresses of both ways.
sctp_probe() {
    echo probe | sctpt client --addr "$SCTP_VIP4,$SCTP_VIP6" \
        --laddr "192.168.2.$NODE,$PREFIX:192.168.6.$NODE" "$@" | grep -q 'recv> probe'
}

# sctp_traffic CLIENTS OPTIONS...: so many associations from this tester's addresses of both families on the
# first way. Each must meet one server, every message be answered once, and all servers have some.
sctp_traffic() {
    local clients=$1 found
    shift
    sctpt ctraffic --addr "$SCTP_VIP4,$SCTP_VIP6" --laddr "192.168.2.$NODE,$PREFIX:192.168.2.$NODE" \
        --clients "$clients" --init --connect-timeout 5 --wait 10 --detail summary \
        --fail-on lost,failed,duplicates,reordered,corrupted,moves "$@" >/run/sctpt.json || {
        say "sctpt: $(cat /run/sctpt.json)"
        return 1
    }
    # Without a move, an association in this sum met one server.
    found=$(tr -d ' \n' </run/sctpt.json | grep -o '"vm-[0-9]*":{"associations":[0-9]*' |
        awk -F : '{ all += $NF } END { print NR, all + 0 }')
    [ "$found" = "$(echo "$NODES" | wc -w) $clients" ] ||
        { say "servers and their associations: $found, not $clients at $NODES"; return 1; }
}
