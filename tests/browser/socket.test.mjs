// What a plain `WebSocket` of a page gets.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Hub, LIMIT, browse, until } from "./hub.mjs";

let browser;
before(async () => { browser = await browse(); });
after(() => browser.close());

// Opens a WebSocket in a page. What it is told is in `window.told`, and its end too.
async function connect(page, host) {
  await page.evaluate((host) => {
    window.told = [];
    window.socket = new WebSocket(`ws://${host}/v1/ws`, "watchkeep.v1");
    window.say = (message) => window.socket.send(JSON.stringify(message));
    window.socket.onopen = () => window.told.push({ type: "open", protocol: window.socket.protocol });
    window.socket.onmessage = (message) => window.told.push(JSON.parse(message.data));
    window.socket.onclose = (end) => window.told.push({ type: "close", code: end.code });
  }, host);
  await until(page, () => window.told.some((it) => it.type === "open" || it.type === "close"));
}

const told = (page, type) =>
  until(page, (type) => window.told.some((it) => it.type === type), type).then(() =>
    page.evaluate((type) => window.told.findLast((it) => it.type === type), type));

test("a page writes, is told, and goes on where it was after a restart", { timeout: 2 * LIMIT }, async () => {
  const hub = new Hub();
  const page = await browser.newPage();
  try {
    await hub.start();
    await page.goto(hub.url);
    await connect(page, hub.listen);
    assert.equal((await told(page, "open")).protocol, "watchkeep.v1");
    await page.evaluate(() => window.say({ type: "subscribe", id: "s", group: "g" }));
    await told(page, "ready");
    await page.evaluate(() => window.say({ type: "set", id: "w", group: "g", key: "k", value: "1" }));
    await told(page, "done");
    const { cursor, event } = await told(page, "change");
    assert.equal(event.value, "1");

    assert.equal(await hub.end("SIGTERM"), 0);
    assert.equal((await told(page, "close")).code, 1001);
    assert.equal((await told(page, "bye")).reason, "ending");

    hub.run("set", "g", "k", "2");
    await hub.start();
    await connect(page, hub.listen);
    await page.evaluate((after) => window.say({ type: "subscribe", id: "s", group: "g", after }), cursor);
    assert.equal((await told(page, "change")).event.value, "2");
  } finally {
    await page.close();
    await hub.close();
  }
});

test("a page of a stranger gets no connection", { timeout: 2 * LIMIT }, async () => {
  const [hub, stranger] = [new Hub(), new Hub()];
  // The stranger's own policy would keep its page from asking anybody else.
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  try {
    await Promise.all([hub.start(), stranger.start()]);
    await page.goto(stranger.url);
    await connect(page, hub.listen);
    assert.equal((await told(page, "close")).code, 1006);
    // To its own server it gets one.
    await connect(page, stranger.listen);
    await told(page, "open");
  } finally {
    await context.close();
    await Promise.all([hub.close(), stranger.close()]);
  }
});
