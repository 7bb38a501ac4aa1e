# load.sh ADDRESS PORT: one HTTP request after the other; a line for each: the time, and the last line of the answer, or "failed".
# No program is started for a request, so that under emulation the times are those of the network and the server.
trap '' PIPE
exec {never}<> <(:)
ask() {
    printf 'GET / HTTP/1.0\r\n\r\n' >&3 || return
    while read -rt 5 -u 3 line; do answer=$line; done
    (($? < 128)) || answer=failed # a timeout
}
while :; do
    answer=failed
    ask 3<>"/dev/tcp/$1/$2"
    [[ $answer = *" on "* ]] || answer=failed
    echo "$EPOCHREALTIME $answer"
    read -rt 0.01 -u "$never"
done 2>/dev/null
