// Opens turnd's own pages in headless Chromium, does there what a plan says, and prints what was seen as one line of JSON.
// Arguments: the directory of playwright-core, a directory for pictures, and the plan: a list of steps. Without a plan,
// steps are read from lines, and each is answered by a line.
'use strict';
const path = require('path');
const readline = require('readline');

const [modules, pictures, plan] = process.argv.slice(2);
const { chromium } = require(path.join(modules, 'playwright-core'));
const PATIENCE = 45000;

// Each step gets the browser's state, and what the plan says of it.
const steps = {
  /** A page in a window and a colour scheme of its own. */
  async open(state, { url, width = 1280, height = 860, scheme = 'light', pretend }) {
    const context = await state.browser.newContext({
      viewport: { width, height }, colorScheme: scheme, permissions: ['clipboard-read', 'clipboard-write'],
    });
    const page = state.page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    page.on('pageerror', (error) => state.wrong.push(String(error)));
    page.on('console', (message) => {
      if (/Content Security Policy|violation/.test(message.text())) state.wrong.push(message.text());
    });
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => console.error('violation of', event.violatedDirective));
    });
    if (pretend) await page.addInitScript(pretendThat, pretend);
    await page.goto(url);
  },
  async fill({ page }, { at, text }) { await page.fill(at, text); },
  async click({ page }, { at }) { await page.click(at); },
  /** Waits until something is seen. */
  async wait({ page }, { at }) { await page.waitForSelector(at); },
  async count(state, { at, as }) { state.seen[as] = await state.page.locator(at).count(); },
  /** Waits until there are fewer of these than were counted. */
  async fewer({ page, seen }, { at, than }) {
    for (const end = Date.now() + PATIENCE; await page.locator(at).count() >= seen[than];) {
      if (Date.now() > end) throw new Error(`still ${seen[than]} of ${at}`);
      await page.waitForTimeout(100);
    }
  },
  async clipboard(state, { as }) { state.seen[as] = await state.page.evaluate(() => navigator.clipboard.readText()); },
  /** What people read and see. */
  async look(state, { as }) {
    const { page } = state;
    state.seen[as] = await page.evaluate(() => document.body.innerText);
    await page.screenshot({ path: path.join(pictures, `${as}.png`), fullPage: true });
    const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (tooWide > 0) state.wrong.push(`${as} is ${tooWide} px wider than its window`);
    state.wrong.push(...(await page.evaluate(sticksOut)).map((text) => `${as}: "${text}" sticks out`));
  },
};

/** Runs in the page: texts that do not fit into their card. */
function sticksOut() {
  return [...document.querySelectorAll('.card')].flatMap((card) => {
    const { right } = card.getBoundingClientRect();
    return [...card.querySelectorAll('*')]
      .filter((part) => !part.closest('.scroll, svg, [hidden]') && part.getBoundingClientRect().right > right + 1)
      .map((part) => part.textContent.slice(0, 60));
  });
}

/** Runs in the page: changes what the server says of itself, and lets it be gone after so many events. */
function pretendThat({ change, gone_after: last }) {
  const ask = window.fetch;
  let asked = 0, told = 0;
  const put = (into, from) => {
    for (const [key, value] of Object.entries(from)) {
      if (value && typeof value === 'object' && into[key]) put(into[key], value); else into[key] = value;
    }
    return into;
  };
  window.fetch = async (url, options) => {
    if (!String(url).startsWith('/v1/live')) return ask(url, options);
    asked += 1;
    if (last && asked > 1) throw new TypeError('gone');
    const answer = await ask(url, options);
    let text = '';
    const changed = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(new TransformStream({
      transform(chunk, controller) {
        text += chunk;
        const events = text.split('\n\n');
        text = events.pop();
        for (const event of events) {
          if (!event.startsWith('data:')) continue;
          controller.enqueue(`data: ${JSON.stringify(put(JSON.parse(event.slice(5)), change ?? {}))}\n\n`);
          told += 1;
          if (told === last) controller.terminate();
        }
      },
    })).pipeThrough(new TextEncoderStream());
    return new Response(changed, { status: answer.status, headers: answer.headers });
  };
}

async function main() {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
    ],
  });
  const state = { browser, seen: {}, wrong: [] };
  const take = async (some) => {
    try {
      for (const step of some) await steps[step.do](state, step);
    } catch (error) {
      state.wrong.push(String(error));
      if (state.page) state.seen.end = await state.page.evaluate(() => document.body.innerText).catch(() => '');
    }
    console.log(JSON.stringify({ seen: state.seen, wrong: state.wrong }));
  };
  if (plan) {
    await take(JSON.parse(plan));
  } else {
    for await (const line of readline.createInterface({ input: process.stdin })) await take([JSON.parse(line)]);
  }
  await browser.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
