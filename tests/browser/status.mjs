// The status page of a box that serves, is drained, is killed and comes back, in a real browser.
//
//   node status.mjs ADMIN HTTP SHOTS BINARY CONFIG   ADMIN, HTTP: http://127.0.0.1:PORT
//   CHROMIUM=path   the browser, Debian's by default
//
// It starts the box itself. A condition is waited for, no time.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { chromium } from 'playwright-core';

const [admin, http, shots, binary, config] = process.argv.slice(2);
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const DEADLINE_MS = 45_000;
const FLAGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const HOSTILE = '<img src=x onerror="window.broken = true">';
const [OPERATOR, VIEWER] = ['an-operators-token', 'a-viewers-own-token'];

if (!config) {
  console.error('usage: node status.mjs ADMIN HTTP SHOTS BINARY CONFIG');
  process.exit(64);
}

const tally = { passed: 0, failed: 0 };
async function check(what, holds) {
  try {
    await holds();
    tally.passed++;
    console.log(`ok      ${what}`);
  } catch (error) {
    tally.failed++;
    console.log(`FAILED  ${what}\n        ${error.message.replaceAll('\n', '\n        ')}`);
  }
}

// ---- the box ------------------------------------------------------------------------------------
let box;
async function start() {
  box = spawn(binary, ['serve', '--config', config], { stdio: 'ignore' });
  const deadline = Date.now() + DEADLINE_MS;
  while (!await fetch(`${admin}/health/ready`).then(({ ok }) => ok, () => false)) {
    assert.ok(Date.now() < deadline && box.exitCode === null, 'the box does not get ready');
    await new Promise(turn => setTimeout(turn, 50));
  }
}
async function kill() {
  box.kill('SIGKILL');
  await once(box, 'exit');
}
const told = () => JSON.parse(execFileSync(binary, ['status', '--admin', admin, '--json']));
const sum = counts => Object.values(counts).reduce((all, one) => all + one, 0);
async function ask(path, headers = {}) {
  const answer = await fetch(http + path, { headers });
  await answer.arrayBuffer();
}

// ---- the page -----------------------------------------------------------------------------------
/** Every request of the page that leaves the box, and all that went wrong in it. */
function watch(page) {
  const seen = { elsewhere: [], wrong: [] };
  page.on('request', request => {
    const { protocol, origin, href } = new URL(request.url());
    if (protocol.startsWith('http') && origin !== admin) seen.elsewhere.push(href);
  });
  page.on('pageerror', error => seen.wrong.push(String(error)));
  page.on('console', message => {
    // What a refusal or a box that is away leaves there is the browser's own line.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) seen.wrong.push(message.text());
  });
  return seen;
}
async function until(page, what, condition, of) {
  try {
    await page.waitForFunction(condition, of, { timeout: DEADLINE_MS, polling: 50 });
  } catch (error) {
    const shown = await page.evaluate(() => document.body.innerText.slice(0, 1500));
    throw new Error(`${what}: not within ${DEADLINE_MS} ms (${error.name})\n${shown}`);
  }
}
const says = (page, id, words) => until(page, `#${id} says ${words}`,
  ([id, words]) => { const place = document.getElementById(id); return place.checkVisibility() && place.textContent.includes(words); }, [id, words]);
const gone = (page, id) => until(page, `#${id} goes`, id => !document.getElementById(id).checkVisibility(), id);

async function figures(page) {
  await check('the page opens and says that the box serves', () => says(page, 'state', 'Serving'));
  const before = told();
  for (let times = 0; times < 3; times++) await ask('/seg-0-00001.m4s');
  await ask('/seg-0-00002.m4s');
  await check('what is asked for changes its figures', async () => {
    const now = told();
    assert.equal(now.requests - before.requests, 4);
    await says(page, 'rate-more', `${now.requests} in all`);
  });
  await check('its hit ratio is that of `tidegate status`', async () => {
    const { bytes, lookups } = told();
    const percent = (part, whole) => `${(100 * part / whole).toFixed(1)}%`;
    assert.ok(bytes.ram > 0 && bytes.fill > 0, JSON.stringify(bytes));
    await says(page, 'hit-bytes', percent(bytes.ram + bytes.ssd, sum(bytes)));
    await says(page, 'hit-requests', percent(lookups.hit + lookups.hit_ssd, sum(lookups)));
  });
  await check('memory, volume, origin and site are there', async () => {
    const { ssd, origins, sites } = told();
    await says(page, 'memory-legend', 'ram tier');
    assert.equal(await page.locator('#volumes tbody td').first().textContent(), ssd.volumes[0].name);
    assert.equal(await page.locator('#origins tbody td').first().textContent(), origins[0].origin + sites[0].name);
    assert.equal(await page.locator('#origins .state').textContent(), 'answers');
    assert.equal(await page.locator('#sites tbody td').first().textContent(), sites[0].name);
  });
  await check('what was sent is drawn', () => until(page, 'an area of the plot', () =>
    document.querySelector('#plot .area.ram') !== null));
}

async function requests(page) {
  await check('requests are told to who shows a token', async () => {
    await page.locator('#log-follow').click();
    await says(page, 'log-more', 'who reads of requests shows a token');
  });
  await page.evaluate(token => sessionStorage.setItem('token', token), VIEWER);
  await page.reload();
  await says(page, 'state', 'Serving');
  await check('a fault in a filter is told', async () => {
    await page.locator('#log-filter').fill('colour = red');
    await page.locator('#log-follow').click();
    await says(page, 'log-more', 'colour');
  });
  await check('each request that the filter lets through is a row as it ends', async () => {
    await page.locator('#log-filter').fill('path ~ seg');
    await page.locator('#log-filter').press('Enter');
    await says(page, 'log-more', 'Following');
    await ask('/master.m3u8');
    await ask('/seg-0-00003.m4s?x=%3Cimg%20src=x%3E', { 'user-agent': HOSTILE });
    await says(page, 'requests', '/seg-0-00003.m4s');
    assert.equal(await page.locator('#requests details').count(), 1);
  });
  await check('what a viewer writes stays text', async () => {
    await page.locator('#requests summary').press('Enter');
    await says(page, 'requests', HOSTILE);
    await says(page, 'requests', 'complete');
    assert.equal(await page.locator('img').count(), 0);
    assert.equal(await page.evaluate(() => window.broken), undefined);
  });
  await check('what is hot is told', async () => {
    await page.locator('#top-kind button[value=objects]').click();
    await says(page, 'top', '/seg-0-00001.m4s');
  });
}

/** On a page of its own: what a browser says of it is no fault of the page. */
async function scripts(browser) {
  await check('a script that got in would not run, and markup is not made of text', async () => {
    const page = await browser.newPage();
    await page.goto(admin);
    const ran = await page.evaluate(hostile => {
      const refused = [];
      const script = document.createElement('script');
      for (const attempt of [
        () => { document.body.insertAdjacentHTML('beforeend', hostile); },
        () => { script.textContent = 'window.broken = true'; document.body.append(script); },
        () => document.body.setAttribute('onclick', 'window.broken = true'),
      ]) try { attempt(); } catch (error) { refused.push(error.name); }
      document.body.click();
      return [refused, document.querySelector('img'), window.broken];
    }, HOSTILE);
    assert.deepEqual(ran, [['TypeError', 'TypeError', 'TypeError'], null, undefined]);
    await page.close();
  });
}

/** No figure is beside the window at the width of a phone; the pictures are for people. */
async function pictures(browser) {
  for (const [name, colorScheme, width, height] of
    [['light', 'light', 1280, 900], ['dark', 'dark', 1280, 900], ['phone', 'dark', 375, 812]]) {
    await check(`it is shown ${name}, and nothing is beside the window`, async () => {
      const page = await browser.newPage({ colorScheme, viewport: { width, height } });
      await page.goto(admin);
      await says(page, 'state', 'Serving');
      const [wide, ground] = await page.evaluate(() =>
        [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]);
      await page.screenshot({ path: `${shots}/status-${name}.png`, fullPage: true });
      assert.equal(wide, width);
      assert.equal(ground, colorScheme === 'light' ? 'rgb(243, 245, 248)' : 'rgb(10, 14, 19)');
      await page.close();
    });
  }
}

async function drain(page) {
  const order = async (button, token) => {
    await page.locator(`#${button}`).click();
    await page.locator('#drain-token').fill(token);
    await page.locator('#drain-sure').click();
  };
  await check('a viewer\'s token drains nothing, and it is said why', async () => {
    await order('drain', VIEWER);
    await says(page, 'drain-refused', 'may look, and nothing else');
    assert.equal(told().drain, null);
    await page.locator('#drain-cancel').click();
  });
  await check('an operator\'s token drains, to where it is safe to power off', async () => {
    await order('drain', OPERATOR);
    await says(page, 'draining-title', 'safe to power off');
    await says(page, 'state', 'Drained');
    assert.equal(told().drain.safe_to_power_off, true);
    assert.equal(await page.locator('#state').getAttribute('data-state'), 'good');
    const steps = await page.locator('#draining-steps').innerText();
    assert.match(steps, /begins at .*\n.*\n *who comes is refused\n *what is left is cut off\n/);
    await page.screenshot({ path: `${shots}/status-drained.png` });
  });
  await check('and has it serve again', async () => {
    await order('undrain', OPERATOR);
    await says(page, 'state', 'Serving');
    await gone(page, 'draining');
  });
}

async function restart(page) {
  await check('a box that is killed is shown as away, since when', async () => {
    await kill();
    await says(page, 'away', 'has not answered since');
    await says(page, 'state', 'No answer');
    await page.screenshot({ path: `${shots}/status-away.png` });
  });
  await check('it comes back by itself, and counts anew', async () => {
    await start();
    await says(page, 'state', 'Serving');
    await gone(page, 'away');
    await ask('/seg-0-00001.m4s');
    await says(page, 'rate-more', '1 in all');
    assert.equal(told().requests, 1);
  });
}

mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  await start();
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const seen = watch(page);
  await page.goto(admin);
  await figures(page);
  await requests(page);
  await scripts(browser);
  await pictures(browser);
  await drain(page);
  await restart(page);
  await check('no request left the box, and nothing went wrong in the page', () =>
    assert.deepEqual([seen.elsewhere, seen.wrong], [[], []]));
} catch (error) {
  await check('it runs', () => { throw error; });
} finally {
  await browser.close();
  await kill();
}
console.log(`\n${tally.passed} passed, ${tally.failed} failed`);
process.exit(tally.failed === 0 ? 0 : 1);
