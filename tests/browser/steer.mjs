// The film in a real browser while boxes go: hls.js, dash.js and Shaka Player play it with content steering
// across three boxes of a fleet. The one that steering sends all of them to is drained, the next one is killed.
// They ask for the film where steering is, and get playlist or MPD of the box that it sends them to. One plays a
// playlist that names no box at all: a box puts steering into it, and the others are clones of that one.
//
//   node steer.mjs BINARY FOLDER STEERING ORIGIN BOX..
//   FOLDER     what the origin serves at ORIGIN; manifests with steering are written into it
//   STEERING   http://127.0.0.1:PORT, where players ask for where to go
//   BOX        NAME=HOST:PORT,ADMIN,PID: where viewers find it, a port, and the process, which may be killed
//   CHROMIUM=path   the browser, Debian's by default
//
// What is asserted is what players say themselves: what they ask for and get, their steering and their
// errors, and how their pictures go on. A condition is waited for, no time.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { check, finish, launch } from './pages.mjs';

const [binary, folder, steering, origin, ...given] = process.argv.slice(2);
const DEADLINE_MS = 45_000;
// As tests/fleet.sh has it: players ask so often while all is well, and while a box drains.
const TTL_MS = 4_000, TTL_UNSETTLED_MS = 10_000, SLACK_MS = 1_000, MOVED_MS_MAX = 4_000, STALL_MS_MAX = 2_000;

if (given.length !== 3) {
  console.error('usage: node steer.mjs BINARY FOLDER STEERING ORIGIN NAME=HOST:PORT,ADMIN,PID NAME=.. NAME=..');
  process.exit(64);
}
const boxes = given.map(text => {
  const [name, host, admin, pid] = text.split(/[=,]/);
  return { name, host, admin: `http://127.0.0.1:${admin}`, pid: Number(pid) };
});

// ---- the manifests ------------------------------------------------------------------------------
// Of one picture, the smallest: nothing but steering moves a player, and the processor decodes four at once.
const KNOWN = `known=${boxes.map(({ name }) => name)}`;

/** The film's playlist as one that three boxes have, each a pathway; it begins at `first`. */
function playlist(first) {
  const film = readFileSync(`${folder}/master.m3u8`, 'utf8');
  const media = film.match(/#EXT-X-MEDIA:.*/)[0];
  const variant = film.match(/#EXT-X-STREAM-INF:.*426x240.*\n.*/)[0];
  const lines = boxes.flatMap(({ name, host }) => [
    media.replace('group_A1', name).replace(/URI="/, `URI="http://${host}/`),
    variant.replace('group_A1', name).replace('\n', `,PATHWAY-ID="${name}"\nhttp://${host}/`),
  ]);
  const server = `${steering}/steer/v1/hls/film/film.m3u8?${KNOWN}`;
  return `#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-CONTENT-STEERING:SERVER-URI="${server}",PATHWAY-ID="${first.name}"\n` +
    `${lines.join('\n')}\n`;
}

/** The same with nothing said of boxes or steering: the box that serves it puts that there. */
function bare() {
  const film = readFileSync(`${folder}/master.m3u8`, 'utf8');
  const [media] = film.match(/#EXT-X-MEDIA:.*/), [variant] = film.match(/#EXT-X-STREAM-INF:.*426x240.*\n.*/);
  return `#EXTM3U\n#EXT-X-VERSION:7\n${media}\n${variant}\n`;
}

/** The same of its MPD, where boxes are service locations. */
function mpd(first) {
  const film = readFileSync(`${folder}/manifest.mpd`, 'utf8');
  const bases = boxes.map(({ name, host }) => `<BaseURL serviceLocation="${name}">http://${host}/</BaseURL>`);
  const steered = `<ContentSteering defaultServiceLocation="${first.name}" queryBeforeStart="true">` +
    `${steering}/steer/v1/dash/film/film.mpd?${KNOWN}</ContentSteering>`;
  return film.replace('</ProgramInformation>', `$&\n${bases.join('\n')}`).replace('<Period', `${steered}\n$&`)
    .replace(/<Representation id="[01]"[^]*?<\/Representation>/g, '');
}

// ---- the players --------------------------------------------------------------------------------
// hls.js knows clones by their hosts alone, so the boxes are on one port. Shaka Player (5.2) cannot use clones at all:
// its compiled build has other names for what they say.
// Each says in its page what it asks for (`ask`), gets (`got`), what a box fails to give it (`lost`), what steering
// tells it (`told`), and what ends it (`fatal`). They keep little ahead, so that boxes are asked all the time.
const PLAYERS = [
  ...[['hls.js', 'film.m3u8'], ['hls.js with clones', 'clones.m3u8']].map(([name, manifest]) => ({
    name, script: 'src/page/vendor/hls.min.js', manifest,
    start([manifest, ahead]) {
      const { video, say } = window.steered;
      const { default: policy } = Hls.DefaultConfig.fragLoadPolicy;
      // It tries a fragment seven times at one box, half a minute, unless it is told otherwise.
      const errorRetry = { maxNumRetry: 1, retryDelayMs: 200, maxRetryDelayMs: 200 };
      const hls = new Hls({
        maxBufferLength: ahead, maxMaxBufferLength: ahead, fragLoadPolicy: { default: { ...policy, errorRetry } },
      });
      hls.on(Hls.Events.FRAG_LOADING, (_, { frag }) => say('ask', frag.url));
      hls.on(Hls.Events.FRAG_LOADED, (_, { frag }) => say('got', frag.url));
      hls.on(Hls.Events.STEERING_MANIFEST_LOADED, (_, { steeringManifest }) =>
        say('told', steeringManifest['PATHWAY-PRIORITY'].join()));
      hls.on(Hls.Events.ERROR, (_, { details, fatal, frag }) =>
        say(fatal ? 'fatal' : /^fragLoad/.test(details) ? 'lost' : 'flaw', `${frag?.url} ${details}`));
      hls.loadSource(manifest);
      hls.attachMedia(video);
    },
  })),
  {
    name: 'dash.js', script: 'src/page/vendor/dash.all.min.js', manifest: 'film.mpd',
    start([manifest, ahead]) {
      const { video, say } = window.steered;
      const player = dashjs.MediaPlayer().create(), { events } = dashjs.MediaPlayer;
      const buffer = { bufferTimeDefault: ahead, bufferTimeAtTopQuality: ahead, bufferTimeAtTopQualityLongForm: ahead };
      player.updateSettings({ streaming: { buffer } });
      player.on(events.FRAGMENT_LOADING_STARTED, ({ request }) => say('ask', request.url));
      player.on(events.FRAGMENT_LOADING_COMPLETED, ({ request, error }) => say(error ? 'lost' : 'got', request.url));
      player.on(events.CONTENT_STEERING_REQUEST_COMPLETED, ({ currentSteeringResponseData: told }) =>
        say('told', told.pathwayPriority.join()));
      // A fragment that no try brought is told as an error (27), and it goes on elsewhere.
      player.on(events.ERROR, ({ error: { code, message } }) =>
        say(code === 27 ? 'lost' : 'fatal', `${code} ${message}`));
      player.initialize(video, manifest, false);
    },
  },
  ...[['Shaka Player with HLS', 'film.m3u8'], ['Shaka Player with DASH', 'film.mpd']].map(([name, manifest]) => ({
    name, script: 'tests/browser/node_modules/shaka-player/dist/shaka-player.compiled.js', manifest,
    async start([manifest, ahead]) {
      const { video, say } = window.steered;
      shaka.polyfill.installAll();
      const player = new shaka.Player(), { RequestType } = shaka.net.NetworkingEngine;
      player.configure({ streaming: { bufferingGoal: ahead, rebufferingGoal: 2 } });
      const net = player.getNetworkingEngine();
      net.registerRequestFilter((type, { uris }) => { if (type === RequestType.SEGMENT) say('ask', uris[0]); });
      net.registerResponseFilter((type, { uri, data }) => {
        if (type === RequestType.SEGMENT) say('got', uri);
        if (type !== RequestType.CONTENT_STEERING) return;
        say('told', JSON.parse(new TextDecoder().decode(data))['PATHWAY-PRIORITY'].join());
      });
      const { OPERATION_ABORTED } = shaka.util.Error.Code;
      player.addEventListener('downloadfailed', ({ request, error }) =>
        say(error?.code === OPERATION_ABORTED ? 'flaw' : 'lost', `${request.uris[0]} ${error?.code}`));
      player.addEventListener('error', ({ detail: { severity, code } }) => say(severity === 2 ? 'fatal' : 'flaw', code));
      await player.attach(video);
      await player.load(manifest);
    },
  })),
];
const AHEAD_S = 8;

/** What is the same in every page: who records, and the picture. */
function prepare() {
  const video = document.querySelector('video'), events = [];
  const ahead = () => video.buffered.length ? video.buffered.end(video.buffered.length - 1) : 0;
  const say = (what, text) => events.push({ at: Date.now(), what, text, time: video.currentTime, ahead: ahead() });
  const names = ['waiting', 'playing', 'timeupdate', 'ended', 'error'];
  for (const name of names) video.addEventListener(name, () => say(name));
  window.steered = { video, events, say };
}

class Play {
  static async begin(browser, player) {
    const page = await browser.newPage(), play = new Play();
    Object.assign(play, { name: player.name, page, errors: [] });
    page.on('pageerror', error => play.errors.push(String(error)));
    await page.goto(`${origin}/page.html`, { waitUntil: 'load' });
    await page.addScriptTag({ path: player.script });
    await page.evaluate(prepare);
    await page.evaluate(player.start, [`${steering}/steer/v1/go/film/${player.manifest}`, AHEAD_S]);
    return play;
  }

  /** Polls the page until `condition` holds there; says how it stood if it never does. */
  async until(what, condition, of) {
    try {
      await this.page.waitForFunction(condition, of, { timeout: DEADLINE_MS, polling: 50 });
    } catch (error) {
      const last = (await this.events()).filter(({ what }) => what !== 'timeupdate').slice(-30);
      const said = last.map(({ at, what, text, time, ahead }) => [at % 1e6, time, ahead, what, text].join(' '));
      const lines = [`${this.name}: ${what}: not within ${DEADLINE_MS} ms (${error.name})`, ...this.errors, ...said];
      throw new Error(lines.join('\n'));
    }
  }

  events() {
    return this.page.evaluate(() => window.steered.events);
  }

  /** Until it has so many fragments of a box that it did not have then. */
  has(box, count, since = 0) {
    return this.until(`has ${count} fragments of ${box.name}`, ([host, count, since]) => {
      const is = ({ at, what, text }) => what === 'got' && at > since && text.includes(host);
      return window.steered.events.filter(is).length >= count;
    }, [box.host, count, since]);
  }
}

const of = (events, what, box) =>
  events.filter(event => event.what === what && (!box || event.text.includes(box.host)));

/** The longest time that the picture stood still, from its first movement to its last. */
function longestStall(events) {
  const steps = events.filter(({ what }, at) => what === 'timeupdate' && events[at].time > 0);
  const moves = steps.filter(({ time }, at) => at === 0 || time > steps[at - 1].time);
  assert.ok(moves.length > 10, `the picture moved ${moves.length} times`);
  return Math.max(...moves.slice(1).map(({ at }, place) => at - moves[place].at));
}

// ---- what happens -------------------------------------------------------------------------------
const ranked = async () => {
  const told = await (await fetch(`${steering}/steer/v1/rank/film/film.m3u8`)).json();
  return told.ranked.map(({ appliance }) => boxes.find(({ name }) => name === appliance));
};

const all = (plays, does) => Promise.all(plays.map(does));

async function run(browser) {
  const [first, second, third] = await ranked();
  writeFileSync(`${folder}/film.m3u8`, playlist(third));
  writeFileSync(`${folder}/film.mpd`, mpd(third));
  writeFileSync(`${folder}/clones.m3u8`, bare());
  writeFileSync(`${folder}/page.html`, '<!doctype html><video muted width=426 height=240></video>');
  const plays = await all(PLAYERS, player => Play.begin(browser, player));
  await all(plays, play => play.until('can play', () => window.steered.video.readyState >= 3));
  await all(plays, ({ page }) => page.evaluate(() => window.steered.video.play()));
  await all(plays, play => play.until('plays for two seconds', () => window.steered.video.currentTime > 2));
  await all(plays, play => play.has(first, 2));

  execFileSync(binary, ['drain', '--admin', first.admin]);
  while ((await ranked()).includes(first)) await new Promise(turn => setTimeout(turn, 20));
  const drained = Date.now();
  await all(plays, play => play.has(second, 2, drained));

  const killed = Date.now();
  process.kill(second.pid, 'SIGKILL');
  await all(plays, play => play.has(third, 2, killed));
  await all(plays, play => play.until('plays what came of the third box', ([host, killed]) => {
    const { events, video } = window.steered;
    const came = events.find(({ at, what, text }) => what === 'got' && at > killed && text.includes(host));
    return video.currentTime > Math.min(came.ahead + 3, video.duration - .2);
  }, [third.host, killed]));
  for (const play of plays) judge(play, await play.events(), { first, second, third, drained, killed });
  const now = await ranked();
  check('steering sends nobody to either box any more', () =>
    assert.deepEqual(now.map(({ name }) => name), [third.name]));
}

// Where these are Shaka Player (5.2) finds out when it loads a playlist of HLS, and keeps to that.
const LAST = /seg-2-00015|seg-3-00016/;

function judge({ name, errors }, events, { first, second, third, drained, killed }) {
  const after = (what, box, since) => of(events, what, box).filter(({ at }) => at > since);
  const toldOf = box => ({ text }) => text.startsWith(box.name);
  const told = of(events, 'told').find(toldOf(second));
  const last = of(events, 'ask', first).at(-1), movedTo = after('ask', third, killed)[0];
  const [lost, again] = [after('lost', second, killed)[0], after('told', undefined, killed).find(toldOf(third))];
  const why = [lost, again].find(event => event && event.at <= movedTo.at), stall = longestStall(events);
  const before = events.filter(({ at }) => at < killed);
  const tellings = of(events, 'told').map(({ at, text }) => `${text} at ${at - drained} ms`);
  console.log(`        ${name}: steering said ${tellings.join(', ')} (0: it knew of the drain)`);
  console.log(`        ${name}: asked that box last at ${last.at - drained} ms; left the other ${movedTo.at - killed} ms after ` +
    `the kill, ${movedTo.at - why?.at} ms after ${why === lost ? 'an error' : 'it was told'}; stood still for ${stall} ms`);
  check(`${name}: steering sends it to the first box before it plays`, () => {
    const begun = of(events, 'told')[0];
    assert.ok(begun.time === 0 && begun.text.startsWith(first.name), JSON.stringify(begun));
  });
  check(`${name}: leaves the box that drains within one TTL, told by steering alone`, () => {
    assert.ok(told.at - drained < TTL_MS + SLACK_MS, 'told late');
    const asked = after('ask', first, told.at + SLACK_MS).filter(({ text }) => !LAST.test(text));
    assert.deepEqual(asked, [], 'it asks there still');
    assert.deepEqual([...of(before, 'lost'), ...of(before, 'fatal')], []);
  });
  check(`${name}: leaves the box that is killed on the error, or as steering tells it before that`, () => {
    assert.ok(why && movedTo.at - why.at < MOVED_MS_MAX, 'moved late');
    assert.ok(movedTo.at - killed < TTL_UNSETTLED_MS);
  });
  check(`${name}: plays on without a stall of ${STALL_MS_MAX / 1000} s, or an error that matters`, () => {
    assert.deepEqual([errors, of(events, 'fatal'), of(events, 'error')], [[], [], []]);
    assert.ok(stall < STALL_MS_MAX, `${stall} ms`);
  });
}

const browser = await launch();
try {
  await run(browser);
} catch (error) {
  check('the film is played', () => { throw error; });
} finally {
  await browser.close();
}
finish();
