// What a plain `EventSource` gets, with no code of ours in the page.

import assert from "node:assert/strict";
import { renameSync } from "node:fs";
import { after, before, test } from "node:test";
import { Hub, LIMIT, browse, until, watch } from "./hub.mjs";

let browser;
before(async () => { browser = await browse(); });
after(() => browser.close());

// A test with a hub, and a page of it.
function hub_test(name, body) {
  test(name, { timeout: 2 * LIMIT }, async () => {
    const hub = new Hub();
    const page = await browser.newPage();
    try {
      await body(hub, page);
    } finally {
      await page.close();
      await hub.close();
    }
  });
}

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => String(from + at));

hub_test("nothing is lost over a killed server, and nothing comes twice", async (hub, page) => {
  await hub.start();
  await page.goto(hub.url);
  await watch(page, "group=g");
  await until(page, () => window.told.includes("ready"));
  for (const number of numbers(1, 5)) await hub.put("g", "k", number);
  await until(page, () => window.told.includes("5"));
  await hub.end("SIGKILL");
  for (const number of numbers(6, 10)) hub.run("set", "g", "k", number);
  await hub.start();
  for (const number of numbers(11, 15)) await hub.put("g", "k", number);
  await until(page, () => window.told.includes("15"));
  const told = await page.evaluate(() => window.told);
  assert.deepEqual(told.filter((it) => it !== "ready"), numbers(1, 15));
});

hub_test("a stream that is asked to end says so, and comes back", async (hub, page) => {
  await hub.start();
  await page.goto(hub.url);
  await watch(page, "group=g");
  await until(page, () => window.told.includes("ready"));
  assert.equal(await hub.end("SIGTERM"), 0);
  await until(page, () => window.told.includes("bye"));
  hub.run("set", "g", "k", "meanwhile");
  await hub.start();
  await until(page, () => window.told.includes("meanwhile"));
});

hub_test("a copy heals after the log was trimmed, and after another store took its place", async (hub, page) => {
  hub.run("set", "g", "old", "1");
  await hub.start();
  await page.goto(hub.url);
  await watch(page, "snapshot=auto");
  await until(page, () => window.told.includes("ready"));
  assert.deepEqual(await page.evaluate(() => window.copy), { "g/old": "1" });
  await hub.end("SIGKILL");
  hub.run("delete", "g", "old");
  for (const key of ["a", "b"]) hub.run("set", "g", key, "2");
  hub.run("compact", "--before", "4");
  await hub.start();
  await until(page, () => window.told.includes("reset: trimmed") && window.told.at(-1) === "ready");
  assert.deepEqual(await page.evaluate(() => window.copy), { "g/a": "2", "g/b": "2" });
  await hub.end("SIGKILL");
  hub.run("backup", hub.store("saved.db"));
  hub.run("restore", hub.store("saved.db"), "--force");
  hub.run("set", "g", "c", "3");
  await hub.start();
  await until(page, () => window.told.includes("reset: foreign") && window.told.at(-1) === "ready");
  assert.deepEqual(await page.evaluate(() => window.copy), { "g/a": "2", "g/b": "2", "g/c": "3" });
});

hub_test("a copy heals in the same stream when the file is replaced under the server", async (hub, page) => {
  hub.run("set", "g", "kept", "1");
  hub.run("backup", hub.store("saved.db"));
  hub.run("set", "g", "lost", "2");
  await hub.start();
  await page.goto(hub.url);
  await watch(page, "snapshot=auto");
  await until(page, () => window.told.includes("ready"));
  assert.deepEqual(await page.evaluate(() => window.copy), { "g/kept": "1", "g/lost": "2" });
  renameSync(hub.store("saved.db"), hub.store());
  await until(page, () => window.told.includes("reset: foreign") && window.told.at(-1) === "ready");
  assert.deepEqual(await page.evaluate(() => window.copy), { "g/kept": "1" });
  await hub.put("g", "new", "3");
  await until(page, () => window.told.includes("3"));
  const marks = await page.evaluate(() => window.told.filter((it) => !/^\d$/.test(it)));
  assert.deepEqual(marks, ["reset: start", "ready", "reset: foreign", "ready"]);
  assert.equal(await hub.end("SIGTERM"), 0);
  assert.equal(hub.run("get", "g", "new"), "3");
});

hub_test("the page shows what is written, as text", async (hub, page) => {
  const wrong = [];
  page.on("dialog", (dialog) => { wrong.push(dialog.message()); dialog.dismiss(); });
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (line) => { if (line.type() === "error") wrong.push(line.text()); });
  await hub.start();
  await page.goto(hub.url);
  await page.getByText(/^live, at/).waitFor({ timeout: LIMIT });
  const hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>";
  await hub.put(hostile, "k", hostile);
  await page.getByRole("cell", { name: hostile }).first().waitFor({ timeout: LIMIT });
  assert.equal(await page.locator("td img, td script").count(), 0);
  // A long value is not fetched, but told by its length.
  await hub.put("g", "whole", "w".repeat(4096));
  await hub.put("g", "long", "l".repeat(4097));
  await page.getByRole("cell", { name: "4097 bytes", exact: true }).waitFor({ timeout: LIMIT });
  assert.equal(await page.getByRole("cell", { name: "w".repeat(4096) }).count(), 1);
  assert.equal(await page.getByRole("cell", { name: /lll/ }).count(), 0);
  assert.deepEqual(wrong, []);
});

hub_test("the page of a store with tokens asks for one, and ends with it", async (hub, page) => {
  const token = hub.run("token", "create", "--watch").trim();
  hub.run("set", "g", "k", "for those who may");
  await hub.start();
  await page.goto(hub.url);
  await page.getByText("a token is needed").waitFor({ timeout: LIMIT });
  await page.getByLabel(/^Token/).fill(`${token.slice(0, -1)}${token.endsWith("x") ? "y" : "x"}`);
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByText(/token/).filter({ hasNotText: "a token is needed" }).first().waitFor({ timeout: LIMIT });
  assert.equal(await page.getByRole("cell").count(), 0);
  await page.getByLabel(/^Token/).fill(token);
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByRole("cell", { name: "for those who may" }).waitFor({ timeout: LIMIT });
  const [{ id }] = [JSON.parse(hub.run("--json", "token", "list").split("\n")[0])];
  hub.run("token", "revoke", id);
  await page.getByText("a token is needed").waitFor({ timeout: LIMIT });
});
