# Verbs for start-up scripts and scenarios: `. /usr/lib/ovl/verbs.sh`.
# A verb that fails says why on standard error and returns 1.
# shellcheck shell=dash

# The machine's profile, with the cluster's variables behind it, was not written for -e and -u.
flags=$-
set +eu
. /etc/profile
case $flags in *e*) set -e ;; esac
case $flags in *u*) set -u ;; esac
unset flags

# say TEXT...: on standard error.
say() {
    echo "$*" >&2
}

# now: hundredths of a second since the machine was started.
now() {
    local up rest
    read -r up rest </proc/uptime
    rest=${up#*.}
    echo $((${up%.*} * 100 + 1$rest - 100))
}

# within SECONDS COMMAND...: repeats a command until it succeeds. Shows what the last try printed.
within() {
    local deadline said
    deadline=$(($(now) + $1 * 100))
    shift
    while ! said=$("$@" 2>&1); do
        if [ "$(now)" -ge "$deadline" ]; then
            say "$*: no success in time${said:+; last: $said}"
            return 1
        fi
        sleep 0.02
    done
    [ -z "$said" ] || echo "$said"
}

# soak SHORT LONG: prints the long form of a number where MARKWAY_SOAK=1 asks for it.
soak() {
    if [ "${MARKWAY_SOAK-}" = 1 ]; then echo "$2"; else echo "$1"; fi
}

# alive PID: whether a process runs; one that has ended and was not collected does not. One that looks
# so may have threads that are ending still, and keep its sockets until then.
alive() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    stat=${stat##*) }
    [ "${stat%% *}" != Z ] && return
    # As many words as it has threads.
    # shellcheck disable=SC2046
    set -- $(ls "/proc/$1/task" 2>/dev/null)
    [ $# -gt 1 ]
}

# background NAME COMMAND...: starts a program. Its number is in /run/NAME.pid, what it prints in
# /var/log/NAME.log.
background() {
    local name=$1
    shift
    # Here, because the process may come to it later than others look for what it prints.
    : >"/var/log/$name.log"
    "$@" >"/var/log/$name.log" 2>&1 </dev/null &
    echo $! >"/run/$name.pid"
}

# pid_of NAME: the number of what `background` started.
pid_of() {
    cat "/run/$1.pid"
}

# running NAME: whether it is there, and was not ended by `end`.
running() {
    [ -e "/run/$1.pid" ] && alive "$(pid_of "$1")"
}

# end NAME [SIGNAL]: ends what `background` started and waits until it is gone.
end() {
    local pid
    pid=$(pid_of "$1") || return 1
    kill -s "${2-TERM}" "$pid" || return 1
    within 10 gone "$pid" || return 1
    rm -f "/run/$1.pid"
}

gone() {
    ! alive "$1" || { say "process $1 is still there"; return 1; }
}

# started NAME COMMAND...: waits (30 s at most) until COMMAND succeeds, as long as the program NAME runs.
started() {
    local name=$1 deadline reason=
    shift
    deadline=$(($(now) + 3000))
    until "$@" 2>/dev/null; do
        if ! running "$name"; then
            reason="$name ended"
        elif [ "$(now)" -ge "$deadline" ]; then
            reason="$name is not ready after 30 s"
        fi
        if [ -n "$reason" ]; then
            say "$reason: $(grep . "/var/log/$name.log" | tail -n 5)"
            return 1
        fi
        sleep 0.02
    done
}

# ip_batch -4|-6 FILE: gives the lines of a file to ip, if there is such a file.
ip_batch() {
    [ ! -s "$2" ] || ip "$1" -batch "$2"
}

# listening PORT tcp|udp: whether somebody serves a port, on any address of either family.
listening() {
    local state
    case $2 in
        tcp) state=0A ;;
        udp) state=07 ;;
        *) say "listening: no protocol $2"; return 1 ;;
    esac
    cat "/proc/net/$2" "/proc/net/${2}6" |
        grep -Eq "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 $state " ||
        { say "nobody listens on $2 port $1"; return 1; }
}

# wait_listening PORT tcp|udp [SECONDS]
wait_listening() {
    within "${3-10}" listening "$1" "$2"
}

# packets DEVICE rx|tx: how many packets a device has received or sent.
packets() {
    cat "/sys/class/net/$1/statistics/$2_packets"
}

# single_pings COUNT ADDRESS: pings one after the other, each of which must be answered.
single_pings() {
    local left=$1
    while [ "$left" -gt 0 ]; do
        if ! ping -n -q -c 1 -W 2 "$2" >/dev/null; then
            say "ping $2: no answer to number $(($1 - left + 1)) of $1"
            return 1
        fi
        left=$((left - 1))
    done
}

# margin HOSTS: by how many percent of the mean connections may differ: 50 up to 20 hosts, then
# rising to 90 for 100.
margin() {
    if [ "$1" -le 20 ]; then
        echo 50
    elif [ "$1" -ge 100 ]; then
        echo 90
    else
        echo $((50 + ($1 - 20) / 2))
    fi
}

# check_mconnect FILE HOSTS CONNECTIONS [MARGIN]: checks a report of `mconnect -output json`: no
# failures, all connections answered, by exactly so many hosts, each within MARGIN percent of the
# mean.
check_mconnect() {
    tr -d ' \t\r\n' <"$1" | awk -v hosts="$2" -v wanted="$3" -v margin="${4-$(margin "$2")}" '
        function number(key) {
            if (!match(report, "\"" key "\":[0-9]+")) return "missing"
            return substr(report, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
        }
        function wrong(text) {
            print "mconnect: " text | "cat >&2"
            bad = 1
        }
        { report = report $0 }
        END {
            for (i = split("failed_connects failed_reads", keys, " "); i > 0; i--)
                if (number(keys[i]) "" != "0") wrong(keys[i] " is " number(keys[i]))
            if (number("connects") "" != wanted "")
                wrong("connects is " number("connects") ", not " wanted)
            if (match(report, /"hosts":\{[^}]*\}/))
                list = substr(report, RSTART + 9, RLENGTH - 10)
            seen = split(list, pairs, ",")
            if (seen != hosts) wrong(seen " hosts answered, not " hosts ": " list)
            for (i = 1; i <= seen; i++) {
                count[i] = pairs[i]
                sub(/^.*:/, "", count[i])
                sum += count[i]
            }
            if (sum + 0 != wanted + 0) wrong(sum + 0 " connections were answered, not " wanted)
            for (i = 1; i <= seen; i++) {
                parts = count[i] * seen * 100
                if (parts < sum * (100 - margin) || parts > sum * (100 + margin))
                    wrong(pairs[i] " of " sum " is not within " margin " % of the mean")
            }
            exit bad
        }'
}

# mconnect_even HOSTS CONNECTIONS ARGUMENTS...: connects, and checks the report as check_mconnect
# does. Takes MARGIN from the variable.
mconnect_even() {
    local hosts=$1 connections=$2 report status=0
    shift 2
    report=$(mktemp)
    mconnect -output json -nconn "$connections" "$@" >"$report" || true
    check_mconnect "$report" "$hosts" "$connections" "${MARGIN-$(margin "$hosts")}" || status=1
    rm -f "$report"
    return "$status"
}

# http_reply URL BYTES: the whole reply, header included, must have so many bytes and say 200.
# Further arguments are for curl.
http_reply() {
    local url=$1 bytes=$2 reply status=0 seen
    shift 2
    reply=$(mktemp)
    curl --silent --show-error --globoff --include --max-time 5 --output "$reply" "$@" "$url" ||
        status=1
    seen=$(head -n 1 "$reply" | tr -d '\r')
    case $seen in
        HTTP/1.?\ 200\ *) ;;
        *) say "$url: not 200: $seen"; status=1 ;;
    esac
    seen=$(wc -c <"$reply")
    [ "$seen" -eq "$bytes" ] || { say "$url: $seen bytes, not $bytes"; status=1; }
    rm -f "$reply"
    return "$status"
}

# Verbs of other overlays.
for verbs in /usr/lib/ovl/verbs.d/*.sh; do
    if [ -e "$verbs" ]; then
        . "$verbs"
    fi
done
unset verbs
