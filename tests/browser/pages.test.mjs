// What a page of another origin gets: the store, where the page was named, and otherwise nothing.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { Hub, LIMIT, browse, until } from "./hub.mjs";

let browser;
before(async () => { browser = await browse(); });
after(() => browser.close());

// A server of somebody else's, with an empty page.
async function site() {
  const server = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html>"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

// What a program in the page does with a token: it writes, reads, is refused, and watches with a ticket.
function use([url, token]) {
  const authorization = { Authorization: `Bearer ${token}` };
  const entry = `${url}v1/entry?group=g&key=k`;
  window.told = [];
  const work = async () => {
    const put = await fetch(entry, { method: "PUT", body: "there", headers: authorization });
    const got = await fetch(entry, { headers: { ...authorization, "If-Match": put.headers.get("ETag") } });
    const late = await fetch(entry, { method: "DELETE", headers: { ...authorization, "If-Match": '"other-1"' } });
    const answer = await fetch(`${url}v1/tickets`, {
      method: "POST",
      headers: { ...authorization, "Content-Type": "application/json" },
      body: JSON.stringify({ group: "g", snapshot: "auto" }),
    });
    const source = new EventSource(`${url}v1/watch?ticket=${(await answer.json()).ticket}`);
    source.onmessage = (message) => window.told.push(JSON.parse(message.data).value);
    const cursor = got.headers.get("Watchkeep-Cursor");
    return [put.status, await got.text(), Boolean(cursor), late.status, (await late.json()).kind];
  };
  return work().catch((error) => error.name);
}

test("a page of another origin uses the store if it was named, and only then", { timeout: 2 * LIMIT }, async () => {
  const [hub, named, stranger] = [new Hub(), await site(), await site()];
  const page = await browser.newPage();
  try {
    const token = hub.run("token", "create", "--read", "--write", "--watch").trim();
    await hub.start("--cors-origin", named.origin);
    await page.goto(named.origin);
    const used = await page.evaluate(use, [hub.url, token]);
    assert.deepEqual(used, [204, "there", true, 412, "conflict"]);
    await until(page, () => window.told.includes("there"));
    await hub.put("g", "k", "later", { Authorization: `Bearer ${token}` });
    await until(page, () => window.told.includes("later"));
    await page.goto(stranger.origin);
    assert.equal(await page.evaluate(use, [hub.url, token]), "TypeError");
    assert.equal(hub.run("get", "g", "k").trim(), "later");
  } finally {
    await page.close();
    await hub.close();
    named.server.close();
    stranger.server.close();
  }
});
