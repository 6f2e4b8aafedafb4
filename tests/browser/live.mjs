// Plays a low-latency live stream in two real browsers with hls.js, one from the origin directly, one through the edge,
// while more viewers watch through the edge; then compares how far each was behind.
//
//   node live.mjs DIRECT EDGE ORIGIN [SECONDS]    DIRECT: an origin   EDGE: in front of the origin ORIGIN
//   CHROMIUM=path   the browser, Debian's by default
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Agent, get } from 'node:http';
import { check, finish, launch } from './pages.mjs';

const [direct, edge, origin, seconds = 60] = process.argv.slice(2);
const VIEWERS = 20, STARTUP_MS = 6_000, SAMPLE_MS = 250, APART_S_MAX = .5;

if (!origin || !(seconds > 0)) {
  console.error('usage: node live.mjs DIRECT EDGE ORIGIN [SECONDS]');
  process.exit(64);
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const median = numbers => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

/** Plays for `seconds`, and says every moment how far behind it is: by its player, and by the clock. */
async function play(base) {
  const browser = await launch();
  try {
    const page = await browser.newPage(), pageErrors = [];
    page.on('pageerror', error => pageErrors.push(String(error)));
    await page.goto(`${base}/`, { waitUntil: 'load' });
    await page.evaluate(() => {
      const video = document.querySelector('video');
      const hls = new Hls({ lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.5 });
      window.live = { hls, video, errors: [], fragments: 0, parts: 0 };
      hls.on(Hls.Events.ERROR, (_, { fatal, details, type }) => window.live.errors.push({ fatal, details, type }));
      hls.on(Hls.Events.FRAG_LOADED, (_, { part }) => { window.live[part ? 'parts' : 'fragments']++; });
      hls.loadSource('/live.m3u8');
      hls.attachMedia(video);
      video.play();
    });
    await page.waitForFunction(() => window.live.video.currentTime > 0 && window.live.hls.playingDate, undefined,
      { timeout: 20_000, polling: 50 });
    await pause(STARTUP_MS);
    const samples = [];
    const sample = () => page.evaluate(() => {
      const { hls, video, errors, parts, fragments } = window.live;
      return {
        byPlayer: hls.latency, byClock: (Date.now() - hls.playingDate) / 1000, target: hls.targetLatency,
        time: video.currentTime, at: performance.now() / 1000, errors, parts, fragments,
      };
    });
    for (const end = Date.now() + seconds * 1000; Date.now() < end; await pause(SAMPLE_MS)) samples.push(await sample());
    const [first, last] = [samples[0], samples.at(-1)];
    return {
      pageErrors, errors: last.errors, target: last.target, parts: last.parts, fragments: last.fragments,
      played: last.time - first.time, passed: last.at - first.at,
      byPlayer: median(samples.map(({ byPlayer }) => byPlayer)), byClock: median(samples.map(({ byClock }) => byClock)),
    };
  } finally {
    await browser.close();
  }
}

/** A body, with the time each piece of it came. */
const fetched = (agent, url) => new Promise((resolve, reject) => {
  get(url, { agent }, response => {
    const pieces = [];
    response.on('data', bytes => pieces.push(bytes));
    response.on('error', reject);
    response.on('end', () => resolve({ status: response.statusCode, pieces: pieces.length, body: Buffer.concat(pieces) }));
  }).on('error', reject);
});

/** Watches as a player does: each update of the playlist and each part, both before they are made. */
async function watch(base, end, seen) {
  const agent = new Agent({ keepAlive: true });
  let { body } = await fetched(agent, `${base}/live.m3u8`);
  while (Date.now() < end) {
    const hint = String(body).match(/PRELOAD-HINT:TYPE=PART,URI="(part-(\d+)-(\d+)\.m4s)"/);
    const [, part, segment, number] = hint;
    const [update, bytes] = await Promise.all([
      fetched(agent, `${base}/live.m3u8?_HLS_msn=${segment}&_HLS_part=${number}`), fetched(agent, `${base}/${part}`),
    ]);
    assert.deepEqual([update.status, bytes.status], [200, 200], part);
    assert.match(String(update.body), new RegExp(`EXT-X-PART:.*${part}`), 'an update has what it was asked for');
    seen.add(`${part} ${createHash('sha256').update(bytes.body).digest('hex')}`);
    body = update.body;
  }
  agent.destroy();
}

const counts = async query => JSON.parse((await fetched(undefined, `${origin}/counts${query}`)).body);
await counts('?reset');
const seen = new Set(), end = Date.now() + STARTUP_MS + seconds * 1000;
const viewers = Promise.allSettled(Array.from({ length: VIEWERS }, () => watch(edge, end, seen)));
const plays = await Promise.allSettled([play(direct), play(edge)]);
const watched = await viewers, asked = await counts('');

check('both browsers play', () => assert.deepEqual(plays.map(({ reason }) => reason?.stack), [undefined, undefined]));
check(`${VIEWERS} more viewers have every update and part`, () =>
  assert.deepEqual(watched.map(({ reason }) => reason?.stack).filter(Boolean), []));
check('all of them have the same bytes of each part', () => {
  const parts = [...seen].map(one => one.split(' ')[0]);
  assert.ok(parts.length > seconds, `${parts.length} parts`);
  assert.deepEqual(parts.filter((part, at) => parts.indexOf(part) !== at), []);
});
check('the origin was asked once for each part, segment and update', () => {
  const once = Object.entries(asked).filter(([url]) => /m4s|_HLS_msn/.test(url));
  assert.ok(once.length > 2 * seconds, `${once.length} of them`);
  assert.deepEqual(once.filter(([, count]) => count > 1), []);
  console.log(`        ${once.length} parts, segments and updates`);
});
if (plays.every(({ value }) => value)) {
  const [far, near] = plays.map(({ value }) => value);
  for (const [name, { pageErrors, errors, played, passed, parts, byPlayer, byClock, target }] of
    [['directly', far], ['through the edge', near]]) {
    console.log(`        ${name}: ${byPlayer.toFixed(2)} s behind by the player (it wants ${target.toFixed(2)}), ` +
      `${byClock.toFixed(2)} s by the clock; ${parts} parts; ${played.toFixed(1)} s of ${passed.toFixed(1)} s played` +
      (errors.length ? `; ${errors.map(({ details }) => details).join(', ')}` : ''));
    check(`${name}: it plays on all the time, without an error that matters`, () => {
      assert.deepEqual([pageErrors, errors.filter(({ fatal }) => fatal)], [[], []]);
      assert.ok(Math.abs(played - passed) < 1, `${played} s played in ${passed} s; ${JSON.stringify(errors)}`);
    });
    check(`${name}: it plays parts`, () => assert.ok(parts > seconds, `${parts} parts`));
  }
  for (const by of ['byPlayer', 'byClock']) {
    check(`the edge costs less than ${APART_S_MAX} s ${by === 'byPlayer' ? 'by the player' : 'by the clock'}`, () =>
      assert.ok(near[by] - far[by] < APART_S_MAX, `${near[by]} s instead of ${far[by]} s`));
  }
}
finish();
