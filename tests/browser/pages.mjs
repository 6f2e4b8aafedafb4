// What every script has that plays in a real browser: Debian's Chromium, and checks that are told and counted.
//
//   CHROMIUM=path   another browser
import { chromium } from 'playwright-core';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--autoplay-policy=no-user-gesture-required'];

/** A browser with a fresh profile. */
export const launch = () => chromium.launch({ executablePath, args: FLAGS });

const tally = { passed: 0, failed: 0 };

/** One line for what holds or not, with what was thrown. */
export function check(what, holds) {
  try {
    holds();
    tally.passed++;
    console.log(`ok      ${what}`);
  } catch (error) {
    tally.failed++;
    console.log(`FAILED  ${what}\n        ${error.message.replaceAll('\n', '\n        ')}`);
  }
}

/** Tells how many checks there were, and ends. */
export function finish() {
  console.log(`\n${tally.passed} passed, ${tally.failed} failed`);
  process.exit(tally.failed === 0 ? 0 : 1);
}
