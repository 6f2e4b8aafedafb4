// Plays the demo film in a real browser, with hls.js and with dash.js, through a running demo edge.
//
//   node play.mjs BASE [SHOTS]     BASE: https://127.0.0.1:PORT   SHOTS: where screenshots go
//   RATE=1..4       playback rate until the seek (1: as a viewer would)
//   CHROMIUM=path   the browser, Debian's by default
//
// Each play has a fresh profile. The first play of a player may cost the origin what it likes; the
// second takes as many film bytes from the edge, and of the origin only words that nothing changed.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { check, finish, launch } from './pages.mjs';

const [base, shots = 'shots'] = process.argv.slice(2);
const rate = Number(process.env.RATE ?? 1);
const DEADLINE_MS = 45_000;
const POLLED = '/status.json';

if (!base || !(rate >= 1 && rate <= 4)) {
  console.error('usage: [RATE=1..4] node play.mjs BASE [SHOTS]');
  process.exit(64);
}

/** What the origin was asked for since it started: film only, the page's polling costs it too. */
async function originCounts(page) {
  const counts = await page.evaluate(async path => (await (await fetch(path)).json()).demo, POLLED);
  assert.equal(typeof counts?.film_bytes, 'number', 'status.json has no member demo.film_bytes');
  return counts;
}

/** Watches every request of a page: those that failed, and the film's with their body bytes. */
async function watch(page) {
  const seen = { failed: [], elsewhere: [], film: [] };
  let leaving = false;
  // Counted as the body's chunks arrive: sizes the browser reports later include frame heads.
  const network = await page.context().newCDPSession(page), requests = new Map();
  await network.send('Network.enable');
  network.on('Network.requestWillBeSent', ({ requestId, request }) => {
    const path = new URL(request.url).pathname;
    if (!path.startsWith('/film/')) return;
    requests.set(requestId, { path, bytes: 0 });
    seen.film.push(requests.get(requestId));
  });
  network.on('Network.dataReceived', ({ requestId, dataLength }) => {
    if (requests.has(requestId)) requests.get(requestId).bytes += dataLength;
  });
  page.on('requestfailed', request => {
    if (!leaving) seen.failed.push(`${request.url()} ${request.failure()?.errorText}`);
  });
  page.on('request', request => {
    const url = new URL(request.url());
    if (url.protocol.startsWith('http') && url.origin !== new URL(base).origin) seen.elsewhere.push(url.href);
  });
  page.on('response', response => {
    if (response.status() >= 400) seen.failed.push(`${response.url()} ${response.status()}`);
  });
  seen.close = () => { leaving = true; };
  return seen;
}

/** Polls the page, not the clock: done when `condition` holds there. Says how the film stood if it never does. */
async function until(page, what, condition) {
  try {
    await page.waitForFunction(condition, undefined, { timeout: DEADLINE_MS, polling: 50 });
  } catch (error) {
    const stood = await page.evaluate(() => {
      const { video, errors } = window.tidegate;
      const { currentTime, duration, paused, ended, seeking, readyState, playbackRate, error } = video;
      const ranges = [...Array(video.buffered.length).keys()];
      const buffered = ranges.map(i => [video.buffered.start(i), video.buffered.end(i)]);
      return { currentTime, duration, paused, ended, seeking, readyState, playbackRate, error, errors, buffered };
    });
    throw new Error(`${what}: not within ${DEADLINE_MS} ms (${error.name})\n${JSON.stringify(stood)}`);
  }
}

async function play(browser, player, shot) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 },
  });
  const page = await context.newPage();
  const seen = await watch(page), pageErrors = [];
  page.on('pageerror', error => pageErrors.push(String(error)));
  try {
    await page.goto(`${base}/?player=${player}&autoplay=1&quality=720`, { waitUntil: 'load' });
    const before = await originCounts(page);
    await page.evaluate(rate => {
      Object.assign(window.tidegate.video, { muted: true, playbackRate: rate });
    }, rate);
    await until(page, 'passes 20 s', () => window.tidegate.video.currentTime > 20);
    await page.screenshot({ path: `${shots}/${shot}.png` });
    const passed = await page.evaluate(() => window.tidegate.video.currentTime);

    await page.evaluate(() => { window.tidegate.video.currentTime = 25; });
    await until(page, 'plays on from 25 s', () =>
      !window.tidegate.video.seeking && window.tidegate.video.currentTime > 25.5);
    // By position: dash.js pauses at the end when it sees it first, and the event `ended` never comes.
    await until(page, 'reaches the end', () =>
      window.tidegate.video.currentTime > window.tidegate.video.duration - .1);

    const end = await page.evaluate(() => {
      const { name, video, errors } = window.tidegate;
      const { width, height } = { width: video.videoWidth, height: video.videoHeight };
      return { name, errors, time: video.currentTime, duration: video.duration, width, height };
    });
    const after = await originCounts(page);
    seen.close();
    return { seen, pageErrors, before, after, passed, end };
  } finally {
    await context.close();
  }
}

const filmBytes = play => play.seen.film.reduce((all, { bytes }) => all + bytes, 0);
const segments = play => new Set(play.seen.film.map(({ path }) => path).filter(path => /\.m4s$/.test(path)));

function checkPlay(name, player, result) {
  const { seen, pageErrors, passed, end } = result;
  check(`${name}: ${player} is what plays, 720 lines`, () =>
    assert.deepEqual([end.name, end.width, end.height], [player, 1280, 720]));
  check(`${name}: currentTime passes 20 s`, () => assert.ok(passed > 20, `stopped at ${passed}`));
  check(`${name}: a seek to 25 s plays on to the end`, () =>
    assert.ok(end.duration > 29.9 && end.time > end.duration - .2, `${end.time} of ${end.duration}`));
  check(`${name}: every segment of picture and sound came`, () => {
    const wanted = [...Array(15).keys()].flatMap(n => [0, 3].map(rendition =>
      `/film/seg-${rendition}-${String(n + 1).padStart(5, '0')}.m4s`));
    assert.deepEqual(wanted.filter(path => !segments(result).has(path)), []);
  });
  check(`${name}: no request failed, none left the edge`, () =>
    assert.deepEqual([seen.failed, seen.elsewhere], [[], []]));
  check(`${name}: no error in the page or its player`, () =>
    assert.deepEqual([pageErrors, end.errors], [[], []]));
}

mkdirSync(shots, { recursive: true });
for (const player of ['hls', 'dash']) {
  const plays = [];
  for (const turn of ['first', 'second']) {
    // A browser of its own for each play: nothing of the last one's cache or connections is left.
    const browser = await launch();
    const name = `${player}, ${turn} play`;
    try {
      const result = await play(browser, player, `${player}-${turn}`);
      plays.push(result);
      checkPlay(name, player, result);
      const { before, after } = result;
      console.log(`        ${filmBytes(result)} film bytes from the edge in ${result.seen.film.length} ` +
        `requests; origin ${after.film_bytes - before.film_bytes} bytes`);
    } catch (error) {
      check(`${name} runs`, () => { throw error; });
    } finally {
      await browser.close();
    }
  }
  const [first, second] = plays;
  if (!second) continue;
  check(`${player}: the second play takes as many bytes from the edge as the first`, () =>
    assert.equal(filmBytes(second), filmBytes(first)));
  check(`${player}: the second play takes no byte from the origin`, () => {
    const cost = key => second.after[key] - first.after[key];
    assert.equal(cost('film_bytes'), 0);
    assert.equal(cost('film_requests') - cost('film_not_modified'), 0, 'only revalidation is asked for');
  });
}
finish();
