#!/usr/bin/env bash
# curl and ffmpeg follow steering through a whole playlist, by a token that lives four seconds: tests/follow.sh BINARY
# Each fragment is asked for where steering is, which sends who asks to a box; there a cookie renews his token.
# Without that the film breaks off. The bytes are compared with tests/media, and the boxes' access logs are counted.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: tests/follow.sh BINARY}
. tests/checks.sh
. tests/fleet.sh

main() {
    film=$scratch/film
    mkdir "$film"
    cp tests/media/* "$film"
    "$binary" keys new "$scratch/keys.json" --issuer publisher >/dev/null
    start_origin "$film"
    # All at one host, whose cookie is for all of them.
    start_fleet "tokens = { keys = \"$scratch/keys.json\", issuers = [\"publisher\"] }" 127.0.0.1 127.0.0.1 127.0.0.1
    [ "$failures" -eq 0 ]
    go=http://127.0.0.1:$steering/steer/v1/go/film
    playlist >"$film/go.m3u8"
    cat "$film"/init-0.mp4 "$film"/seg-0-*.m4s >"$scratch/whole"
    curl_follows
    curl_is_shut_out
    ffmpeg_follows
    ffmpeg_is_shut_out
    [ "$failures" -eq 0 ]
}

# playlist [TOKEN]: the film's own, where each of its files is to be asked for by way of steering.
playlist() {
    sed -E "s|^(.*URI=\")?([a-z0-9-]+\.m[p4]?4s?)(.*)|\1$go/\2${1:+?$1}\3|" "$film/media_0.m3u8"
}

# token MINT-ARGUMENTS...: a parameter that lets in to all boxes for four seconds.
token() {
    "$binary" token mint --keys "$scratch/keys.json" --issuer publisher --valid 4s \
        --pattern 'http://127\.0\.0\.1(:[0-9]+)?/.*' "$@" http://127.0.0.1:80/ | sed 's/.*?//'
}

# fetch PLAYLIST-URL: by curl with a jar for cookies, that playlist and then what it names, three a second: the last
# is asked for when the token is over. Bodies in $scratch/got, a status for each in $scratch/statuses.
fetch() {
    local curl=(curl --silent --location --cookie "$scratch/jar" --cookie-jar "$scratch/jar" --max-time 60)
    rm -f "$scratch/jar" "$scratch/got" "$scratch/statuses"
    "${curl[@]}" --fail --output "$scratch/listed" "$1" || return 1
    grep -oE 'http://[^"]+' "$scratch/listed" | sed 's/.*/url = "&"/' >"$scratch/urls"
    "${curl[@]}" --rate 3/s --config "$scratch/urls" --write-out '%{stderr}%{http_code} after %{num_redirects}\n' \
        >"$scratch/got" 2>"$scratch/statuses"
}

# logged BOX USER-AGENT PATTERN: how many lines of its access log are so.
logged() { grep "\"user_agent\":\"$2" "$scratch/$1/access.log" | grep -cE "$3" || true; }

# all_logged USER-AGENT PATTERN COUNT: so many lines of all boxes.
all_logged() {
    local name count=0
    for name in "${fleet_boxes[@]}"; do count=$((count + $(logged "$name" "$1" "$2"))); done
    [ "$count" -eq "$3" ] || { echo "$count lines, wanted $3"; return 1; }
}

first_box() { ranked | python3 -c 'import json, sys; print(json.load(sys.stdin)["ranked"][0]["appliance"])'; }

has_served() { [ "$(logged "$1" "$2" '"status":200')" -ge "$3" ]; }

# The box that the first part of the film comes of is drained then, and the rest comes of another.
curl_follows() {
    local first second fetching
    first=$(first_box)
    fetch "$go/go.m3u8?$(token --renew 4s)" &
    fetching=$!
    check "curl has the first files of $first" wait_until 20 has_served "$first" curl 5
    check "$first is drained" "$binary" drain --admin "http://127.0.0.1:${box_admin[$first]}"
    check "curl has all that the playlist names" wait "$fetching"
    second=$(first_box)
    check "each file after one redirect" only '200 after 1' 16 "$scratch/statuses"
    check "they are the film" cmp "$scratch/whole" "$scratch/got"
    check "another box is sent to then" [ "$first" != "$second" ]
    check "it has served the rest" wait_until 5 has_served "$second" curl 2
    check "no token was denied" wait_until 5 all_logged curl '"status":200.*"uri_signing":200' 17
    check "a cookie renews the token still" grep -q URISigningPackage "$scratch/jar"
}

# only LINE COUNT FILE: it has so many lines, all the same.
only() { [ "$(sort "$3" | uniq -c | xargs)" = "$2 $1" ] || { cat "$3"; return 1; }; }

# The same token without renewal, shown with each file.
curl_is_shut_out() {
    local token
    token=$(token)
    playlist "$token" >"$film/once.m3u8"
    fetch "$go/once.m3u8?$token" || true
    check "without renewal the film begins" found '200 after 1' "$scratch/statuses"
    check "and every file from some time on is denied" denied_from_then_on "$scratch/statuses"
    check "because the token has expired" wait_until 5 all_logged curl '"status":403.*"uri_signing":404' \
        "$(grep -c '^403' "$scratch/statuses")"
}

found() { grep -qE "^$1" "$2" || { cat "$2"; return 1; }; }

denied_from_then_on() { [ "$(cut -d' ' -f1 "$1" | uniq | xargs)" = "200 403" ] || { cat "$1"; return 1; }; }

# play FILE ADDRESS: at four times the speed, so that half of the film is asked for after the token's time.
play() {
    local input=(-http_persistent 0 -readrate 4 -i "$2")
    ffmpeg -nostdin -v error "${input[@]}" -map 0:v:0 -f framecrc "$1" 2>"$1.log"
}

ffmpeg_follows() {
    ffmpeg -nostdin -v error -i "$scratch/whole" -map 0:v:0 -f framecrc "$scratch/pictures"
    check "ffmpeg plays the film" play "$scratch/played" "$go/go.m3u8?$(token --renew 4s)"
    check "it has every picture" cmp <(pictures "$scratch/pictures") <(pictures "$scratch/played")
    check "without a complaint" [ ! -s "$scratch/played.log" ]
    check "each file by a token that was renewed" wait_until 5 all_logged Lavf '"status":20[06].*"uri_signing":200' 17
}

# Their checksums.
pictures() { grep -v '^#' "$1" | awk '{ print $NF }'; }

ffmpeg_is_shut_out() {
    local token before
    token=$(token)
    playlist "$token" >"$film/again.m3u8"
    play "$scratch/broken" "$go/again.m3u8?$token" || true
    before=$(pictures "$scratch/pictures" | wc -l)
    check "without renewal it has pictures" [ "$(pictures "$scratch/broken" | wc -l)" -gt 0 ]
    check "and breaks off" [ "$(pictures "$scratch/broken" | wc -l)" -lt "$before" ]
    check "because the token has expired" grep -qE '"uri_signing":404.*"Lavf' "$scratch"/box-*/access.log
}

main
