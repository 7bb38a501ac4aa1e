# watch.sh VIP:PORT present|absent ADDRESS:PORT…: waits until the kernel's table gives that virtual server all of these real
# servers, or none of them; writes the time, and how they were left: "gone" or "weight 0". Ends with 1 after 20 seconds.
hexadecimal() { # an address as /proc/net/ip_vs writes it
    local octets
    IFS=. read -ra octets <<<"${1%:*}"
    printf '%02X%02X%02X%02X:%04X' "${octets[@]}" "${1#*:}"
}
exec {never}<> <(:)
vip=$(hexadecimal "$1") wanted=$2
shift 2
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
    left=gone
    ((quiesced == 0)) || left="weight 0"
    if [[ $wanted = present ]]; then goal=${#servers[@]}; else goal=0; fi
    if ((live == goal)); then
        echo "$EPOCHREALTIME $left"
        exit 0
    fi
    read -rt 0.005 -u "$never"
done
exit 1
