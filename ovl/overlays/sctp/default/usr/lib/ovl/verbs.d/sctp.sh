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
