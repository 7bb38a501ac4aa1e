# watch.sh VIP:PORT ADDRESS:PORT…: waits until the kernel sends no new connection of that virtual server to any of these real
# servers; writes the time, and how they are now: "gone" or "quiesced" (weight 0). Ends with 1 after 20 seconds.
hexadecimal() { # an address as /proc/net/ip_vs writes it
    local octets
    IFS=. read -ra octets <<<"${1%:*}"
    printf '%02X%02X%02X%02X:%04X' "${octets[@]}" "${1#*:}"
}
exec {never}<> <(:)
vip=$(hexadecimal "$1")
shift
servers=()
for server; do servers+=("$(hexadecimal "$server")"); done
until ((SECONDS > 20)); do
    mapfile -t lines </proc/net/ip_vs
    inside=false live=0 quiesced=0
    for line in "${lines[@]}"; do
        read -r word server _ weight _ <<<"$line"
        case $word in
            TCP) [[ $server = "$vip" ]] && inside=true || inside=false ;;
            UDP | SCTP | FWM) inside=false ;;
        esac
        if $inside && [[ $word = "->" && " ${servers[*]} " = *" $server "* ]]; then
            ((weight > 0 ? ++live : ++quiesced))
        fi
    done
    if ((live == 0)); then
        ((quiesced == 0)) && left=gone || left=quiesced
        echo "$EPOCHREALTIME $left"
        exit 0
    fi
    read -rt 0.005 -u "$never"
done
exit 1
