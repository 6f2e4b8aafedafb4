// A low-latency HLS origin for tests: packages the demo film, over and over, as if it were filmed now.
//
//   node live_origin.mjs FILM VENDOR     FILM: fragmented MP4, a fragment for each chunk   VENDOR: folder with hls.min.js
//
// Segments of 2 s, parts of 0.4 s, chunks of 0.08 s (RFC 8216bis): it holds requests for updates that a playlist has not
// had yet, and for the part that comes next, which it then sends chunk by chunk as they are made.
// Prints one line of JSON when it listens. /counts says how often each path was asked for, /counts?reset forgets it.
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';

const [film, vendor] = process.argv.slice(2);
const CHUNK_S = .08, CHUNKS_OF_PART = 5, PARTS_OF_SEGMENT = 5, SEGMENT_S = CHUNK_S * CHUNKS_OF_PART * PARTS_OF_SEGMENT;
const PART_S = CHUNK_S * CHUNKS_OF_PART, SEGMENTS_LISTED = 6, SEGMENTS_IN_PARTS = 3;
const HOLD_MS = 3 * SEGMENT_S * 1000;

/** The film: what initialises a player, and its chunks, each a moof and its mdat. */
const { init, chunks, timescale } = read(readFileSync(film));
const filmTicks = Math.round(chunks.length * CHUNK_S * timescale);
// There is something to play when it begins.
const begun = Date.now() - SEGMENTS_LISTED * SEGMENT_S * 1000;

function* boxes(bytes, from, to) {
  for (let at = from; at < to;) {
    const size = bytes.readUInt32BE(at);
    yield { type: bytes.toString('latin1', at + 4, at + 8), at, end: at + size };
    at += size;
  }
}

function find(bytes, path, from = 0, to = bytes.length) {
  const [type, ...rest] = path;
  for (const box of boxes(bytes, from, to)) {
    if (box.type === type) return rest.length ? find(bytes, rest, box.at + 8, box.end) : box;
  }
  throw new Error(`the film has no ${path.join('/')}`);
}

function read(bytes) {
  const moov = find(bytes, ['moov']), mdhd = find(bytes, ['moov', 'trak', 'mdia', 'mdhd']);
  const wide = bytes[mdhd.at + 8] === 1;
  const chunks = [];
  for (const { type, at, end } of boxes(bytes, moov.end, bytes.length)) {
    if (type === 'moof') chunks.push({ at });
    if (type === 'mdat') chunks.at(-1).end = end;
  }
  const whole = chunks.length - chunks.length % (CHUNKS_OF_PART * PARTS_OF_SEGMENT);
  return {
    init: bytes.subarray(0, moov.end),
    timescale: bytes.readUInt32BE(mdhd.at + (wide ? 28 : 20)),
    chunks: chunks.slice(0, whole).map(({ at, end }) => bytes.subarray(at, end)),
  };
}

/** The n-th chunk since it began: the film's, at its place in time. */
function chunk(n) {
  const bytes = Buffer.from(chunks[n % chunks.length]);
  const round = BigInt(Math.floor(n / chunks.length));
  const tfdt = find(bytes, ['moof', 'traf', 'tfdt']);
  if (bytes[tfdt.at + 8] !== 1) throw new Error('the film\'s times are short ones');
  bytes.writeBigUInt64BE(bytes.readBigUInt64BE(tfdt.at + 12) + round * BigInt(filmTicks), tfdt.at + 12);
  bytes.writeUInt32BE(n + 1, find(bytes, ['moof', 'mfhd']).at + 12);
  return bytes;
}

/** When the n-th chunk is made: at its end. */
const madeAt = n => begun + (n + 1) * CHUNK_S * 1000;
const partsMade = () => Math.floor((Date.now() - begun) / (PART_S * 1000));
/** A timer may come before its time by this clock, and what is not made then is not in the playlist. */
async function until(time) {
  while (Date.now() < time) await new Promise(resolve => setTimeout(resolve, time - Date.now()));
}
const partMadeAt = part => madeAt((part + 1) * CHUNKS_OF_PART - 1);

function playlist() {
  const made = partsMade(), last = Math.floor(made / PARTS_OF_SEGMENT), first = Math.max(0, last - SEGMENTS_LISTED);
  const lines = ['#EXTM3U', '#EXT-X-VERSION:9', `#EXT-X-TARGETDURATION:${SEGMENT_S}`,
    `#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=${(3 * PART_S).toFixed(1)}`,
    `#EXT-X-PART-INF:PART-TARGET=${PART_S.toFixed(1)}`, `#EXT-X-MEDIA-SEQUENCE:${first}`, '#EXT-X-MAP:URI="init.mp4"'];
  for (let segment = first; segment <= last; segment++) {
    const time = new Date(begun + segment * SEGMENT_S * 1000).toISOString();
    lines.push(`#EXT-X-PROGRAM-DATE-TIME:${time}`);
    for (let part = 0; part < PARTS_OF_SEGMENT && segment > last - SEGMENTS_IN_PARTS; part++) {
      if (segment * PARTS_OF_SEGMENT + part >= made) break;
      const independent = part === 0 ? ',INDEPENDENT=YES' : '';
      lines.push(`#EXT-X-PART:DURATION=${PART_S.toFixed(5)},URI="part-${segment}-${part}.m4s"${independent}`);
    }
    if (segment < last) lines.push(`#EXTINF:${SEGMENT_S.toFixed(5)},`, `segment-${segment}.m4s`);
  }
  lines.push(`#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-${last}-${made % PARTS_OF_SEGMENT}.m4s"`);
  return lines.join('\n') + '\n';
}

async function answerPlaylist(query, response) {
  let age = SEGMENT_S / 2;
  if (query.has('_HLS_msn')) {
    age = 6 * SEGMENT_S;
    const segment = Number(query.get('_HLS_msn')), part = Number(query.get('_HLS_part') ?? PARTS_OF_SEGMENT - 1);
    const wanted = segment * PARTS_OF_SEGMENT + part;
    if (!(segment >= 0) || segment > partsMade() / PARTS_OF_SEGMENT + 2) return refuse(response, 400);
    if (partMadeAt(wanted) - Date.now() > HOLD_MS) return refuse(response, 503);
    await until(partMadeAt(wanted));
  }
  const head = { 'Content-Type': 'application/vnd.apple.mpegurl', 'Cache-Control': `max-age=${age}` };
  response.writeHead(200, head).end(playlist());
}

/** So many chunks, as they are made. What nobody has been told of is not there yet. */
async function answerChunks(first, count, response) {
  if (madeAt(first) - Date.now() > 2 * PART_S * 1000) return refuse(response, 404);
  await until(madeAt(first));
  response.writeHead(200, { 'Content-Type': 'video/mp4', 'Cache-Control': 'max-age=60', ETag: `"${begun}-${first}-${count}"` });
  for (let n = first; n < first + count; n++) {
    await until(madeAt(n));
    response.write(chunk(n));
  }
  response.end();
}

function refuse(response, status) {
  // For longer than it is true: an edge has to know better.
  response.writeHead(status, { 'Cache-Control': 'max-age=30' }).end();
}

const counts = new Map();
const files = {
  '/init.mp4': ['video/mp4', init],
  '/hls.min.js': ['text/javascript', readFileSync(`${vendor}/hls.min.js`)],
  '/': ['text/html', '<!doctype html><meta charset="utf-8"><title>live</title><video muted playsinline></video>' +
    '<script src="/hls.min.js"></script>'],
};

const server = createServer((request, response) => {
  response.on('error', () => {});
  const url = new URL(request.url, 'http://origin');
  if (url.pathname === '/counts') {
    const told = JSON.stringify(Object.fromEntries(counts));
    if (url.search === '?reset') counts.clear();
    return response.writeHead(200, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' }).end(told);
  }
  counts.set(request.url, (counts.get(request.url) ?? 0) + 1);
  const [, segment, part] = url.pathname.match(/^\/(?:segment|part)-(\d+)(?:-([0-4]))?\.m4s$/)?.map(Number) ?? [];
  if (url.pathname === '/live.m3u8') return answerPlaylist(url.searchParams, response);
  if (segment >= 0 && part >= 0) {
    return answerChunks((segment * PARTS_OF_SEGMENT + part) * CHUNKS_OF_PART, CHUNKS_OF_PART, response);
  }
  if (segment >= 0) {
    const count = PARTS_OF_SEGMENT * CHUNKS_OF_PART;
    return answerChunks(segment * count, count, response);
  }
  const [type, bytes] = files[url.pathname] ?? [];
  if (!type) return refuse(response, 404);
  response.writeHead(200, { 'Content-Type': type, 'Cache-Control': 'max-age=600' }).end(bytes);
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ origin: `http://127.0.0.1:${server.address().port}` })));
