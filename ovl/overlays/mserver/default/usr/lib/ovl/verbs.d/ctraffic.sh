# Verbs about steady traffic.
# shellcheck shell=dash

# udp_traffic PERCENT SIZE ARGUMENTS...: exchanges datagrams of so many bytes; no more than so many
# percent may stay without an answer, and no answer may be wrong or come from another server than the
# one before. Half of what was to be sent must be sent, be the machine as busy as it may. Arguments are
# for ctraffic.
udp_traffic() {
    local most=$1 size=$2 report
    shift 2
    # What it prints are arguments, the last of each kind counts.
    # shellcheck disable=SC2046
    report=$(ctraffic -udp -psize "$size" "$@" $(slower "$@")) || return 1
    echo "$report"
    echo "$report" | check_ctraffic "$most"
}

# slower ARGUMENTS...: on machines, where everything may take four times as long, the arguments for as
# many packets in four times the time.
slower() {
    local number
    tr '\0' ' ' </proc/1/cmdline | grep -q ' guest ' || return 0
    while [ $# -gt 1 ]; do
        number=${2%%[!0-9]*}
        case $1 in
            -rate) echo "-rate $((number / 4))" ;;
            -timeout) echo "-timeout $((number * 4))${2#"$number"}" ;;
        esac
        shift
    done
}

# check_ctraffic PERCENT: the same for a report of ctraffic on standard input.
check_ctraffic() {
    tr -d ' \t\r\n' | awk -v most="$1" '
        function number(key) {
            if (!match(report, "\"" key "\":[0-9]+")) {
                wrong(key " is missing")
                return 0
            }
            return substr(report, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0
        }
        function wrong(text) {
            print "ctraffic: " text | "cat >&2"
            bad = 1
        }
        { report = report $0 }
        END {
            sent = number("Sent")
            missing = sent - number("Received")
            if (sent == 0) wrong("nothing was sent")
            if (number("Dropped") > sent) wrong(number("Dropped") " packets were not sent in time")
            if (missing * 100 > sent * most)
                wrong(missing " of " sent " packets are missing, more than " most " %")
            if (number("Invalid") > 0) wrong(number("Invalid") " answers were wrong")
            if (number("Moves") > 0) wrong(number("Moves") " answers came from another server")
            exit bad
        }'
}

# lost_one_in N SIZE ARGUMENTS...: of every N datagrams one stays without an answer, no other does.
lost_one_in() {
    local n=$1 report sent received
    shift
    report=$(udp_traffic 100 "$@") || return 1
    sent=${report#*\"Sent\":} received=${report#*\"Received\":}
    sent=${sent%%[!0-9]*} received=${received%%[!0-9]*}
    if [ "$sent" -lt "$n" ] || [ $((sent - received)) -ne $((sent / n)) ]; then
        say "ctraffic: $received of $sent packets were answered, not all but $((sent / n))"
        return 1
    fi
}
