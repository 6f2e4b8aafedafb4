#!/usr/bin/env bash
# curl, ffmpeg and ffprobe against the demo's edge: tests/players.sh BINARY
# The bytes are compared with the film in tests/media, not with what another program says of them.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: tests/players.sh BINARY}
. tests/checks.sh

main() {
    start_demo
    https=$(link https) http=$(link http) admin=$(link admin) certificate=$(link certificate)
    film=$https/film
    whole_and_ranges
    conditions_and_refusals
    players
    drain
    [ "$failures" -eq 0 ]
}

# get FILE CURL-ARGUMENTS...: body to FILE, head to FILE.head, status printed.
get() {
    local file=$1
    shift
    curl --silent --show-error --max-time 20 --cacert "$certificate" \
        --output "$file" --dump-header "$file.head" --write-out '%{http_code}' "$@"
}

# answers STATUS CURL-ARGUMENTS...: into $scratch/body and $scratch/body.head.
answers() {
    local wanted=$1 status
    shift
    : >"$scratch/body"
    status=$(get "$scratch/body" "$@")
    [ "$status" = "$wanted" ] || { echo "status $status, wanted $wanted"; cat "$scratch/body.head"; return 1; }
}

head_says() { grep -qiE "^$1" "$scratch/body.head" || { cat "$scratch/body.head"; return 1; }; }

# same FILE [FIRST LENGTH]: the body is that file, or that part of it.
same() {
    local part=$1
    if [ $# -eq 3 ]; then
        part=$scratch/part
        tail -c "+$(($2 + 1))" "$1" | head -c "$3" >"$part" || true
    fi
    cmp "$part" "$scratch/body"
}

whole_and_ranges() {
    local segment=seg-0-00002.m4s path size version
    path=tests/media/$segment
    size=$(stat -c %s "$path")
    for version in --http1.1 --http2; do
        answers 200 "$version" "$film/$segment" || true
        check "curl $version gets a whole segment" same "$path"
        check "curl $version gets a range across a piece border" answers 206 "$version" -r 65000-66999 "$film/$segment"
        check "curl $version gets its bytes" same "$path" 65000 2000
    done
    check "Content-Range says which bytes" head_says "content-range: bytes 65000-66999/$size"
    check "a second request is a hit" head_says 'cache-status:.*tidegate; *hit'
    check "a suffix" answers 206 -r -1000 "$film/$segment"
    check "a suffix is the end" same "$path" $((size - 1000)) 1000
    check "an open range" answers 206 -r 70000- "$film/$segment"
    check "an open range goes to the end" same "$path" 70000 "$size"
    check "cleartext HTTP serves the same object" answers 200 "$http/film/$segment"
    check "cleartext HTTP serves the same bytes" same "$path"
    check "HEAD" answers 200 --head "$film/$segment"
    check "HEAD says how long the object is" head_says "content-length: $size"
}

conditions_and_refusals() {
    local url=$film/seg-0-00002.m4s etag
    get "$scratch/body" "$url" >/dev/null
    etag=$(grep -i '^etag:' "$scratch/body.head" | cut -d' ' -f2- | tr -d '\r')
    check "If-None-Match of the same version is answered 304" answers 304 -H "If-None-Match: $etag" "$url"
    check "If-Range of another version gets the whole object" answers 200 -H 'If-Range: "other"' -r 0-9 "$url"
    check "If-Match of another version is answered 412" answers 412 -H 'If-Match: "other"' "$url"
    check "a range past the end is answered 416" answers 416 -r 999999999- "$url"
    check "416 says how long the object is" head_says 'content-range: bytes \*/'
    check "POST is answered 405" answers 405 -X POST "$url"
    check "405 says what is allowed" head_says 'allow:.*GET'
    check "an object the origin does not have is answered 404" answers 404 "$film/none.m4s"
    check "metrics are served on the admin listener" answers 200 "$admin/metrics"
    check "ready" answers 200 "$admin/health/ready"
}

# The certificate is the demo's own; ffmpeg is told to trust it.
players() {
    local line trust=(-v error -ca_file "$certificate" -tls_verify 1)
    ffprobe "${trust[@]}" -show_entries stream=codec_name:format=duration -of default=noprint_wrappers=1 \
        "$film/master.m3u8" >"$scratch/probe" 2>&1 || true
    for line in codec_name=h264 codec_name=aac 'duration=(29|30)\.'; do
        check "ffprobe finds $line" found "$line" "$scratch/probe"
    done
    ffmpeg "${trust[@]}" -i "$film/master.m3u8" -map 0:v:0 -f framecrc - >"$scratch/hls" 2>"$scratch/hls.log" || true
    check "ffmpeg plays the HLS film without a complaint" quiet "$scratch/hls.log"
    check "ffmpeg decodes every picture of thirty seconds" pictures "$scratch/hls" 700
    # By the DASH manifest: ffmpeg 5.1 cannot seek in fragmented MP4 over HLS, not in local files either.
    ffmpeg "${trust[@]}" -ss 24 -i "$film/manifest.mpd" -t 3 -map 0:v:0 -f framecrc - >"$scratch/dash" 2>"$scratch/dash.log" || true
    check "ffmpeg seeks to 24 seconds of the DASH film" pictures "$scratch/dash" 60
    check "and plays on without a complaint" quiet "$scratch/dash.log"
}

found() { grep -qE "^$1" "$2" || { cat "$2"; return 1; }; }

quiet() { [ ! -s "$1" ] || { cat "$1"; return 1; }; }

pictures() {
    local count
    count=$(grep -cv '^#' "$1" || true)
    [ "$count" -ge "$2" ] || { echo "$count pictures, wanted $2"; cat "$1.log"; return 1; }
}

drain() {
    kill -TERM "$demo"
    check "SIGTERM ends the demo with status 0" wait "$demo"
}

main
