// A WebRTC peer in headless Chromium that does what it is told, one line of JSON in, one line of JSON out.
// Arguments: the directory of playwright-core, and the peer's configuration
// {"urls": [...], "username": ..., "credential": ...}. The aiortc peer understands the same words.
// With {"page": URL} it opens that page instead, and does there what a Visitor understands.
'use strict';
const fs = require('fs');
const path = require('path');
const readline = require('readline');

const [modules, configuration] = process.argv.slice(2);
const { chromium } = require(path.join(modules, 'playwright-core'));

async function main() {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
      '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
    ],
  });
  const page = await browser.newPage();
  page.on('console', (message) => console.error('page:', message.text()));
  page.on('pageerror', (error) => console.error('page error:', error));
  const add = (file) => page.addScriptTag({ content: fs.readFileSync(path.join(__dirname, file), 'utf8') });
  const settings = JSON.parse(configuration);
  if (settings.page) {
    await page.goto(settings.page);
    await add('chromium_page.js');
    await add('chromium_visitor.js');
    await page.evaluate(() => { window.peer = new Visitor(); });
  } else {
    // localhost is a secure context, which the camera wants; nothing listens there.
    const html = { contentType: 'text/html', body: '<!doctype html><title>peer</title>' };
    await page.route('**/*', (route) => route.fulfill(html));
    await page.goto('http://localhost/');
    await add('chromium_page.js');
    await page.evaluate((c) => { window.peer = new Peer(c); }, settings);
  }

  for await (const line of readline.createInterface({ input: process.stdin })) {
    let reply;
    try {
      reply = await page.evaluate((words) => window.peer[words.do](words), JSON.parse(line));
    } catch (error) {
      reply = { error: String(error) };
    }
    console.log(JSON.stringify(reply));
  }
  await browser.close();
}

main().catch((error) => {
  console.log(JSON.stringify({ error: String(error) }));
  process.exit(1);
});
