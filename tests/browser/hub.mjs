// A server on a file of its own, and a page in Chromium that looks at it.

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const BINARY = process.env.WATCHKEEP_BIN;
if (!BINARY || !existsSync(BINARY)) throw new Error("WATCHKEEP_BIN names no watchkeep; run scripts/test browser");

// Far longer than anything takes that goes right.
export const LIMIT = 60_000;

export class Hub {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "watchkeep-browser-"));
    this.listen = "127.0.0.1:0";
  }

  store(name = "app.db") {
    return join(this.folder, name);
  }

  // Runs a command of the command line on the store.
  run(...args) {
    return execFileSync(BINARY, ["--store", this.store(), ...args], { encoding: "utf8" });
  }

  // Starts the server; the second time where it was before.
  async start(...options) {
    this.process = spawn(BINARY, ["--store", this.store(), "serve", "--listen", this.listen, ...options], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    for await (const line of createInterface({ input: this.process.stdout })) {
      this.url = line;
      this.listen = new URL(line).host;
      return;
    }
    throw new Error("the server ended before it said where it listens");
  }

  // Ends the server with a signal, and waits until it is gone; its exit code.
  async end(signal) {
    const gone = new Promise((resolve) => this.process.once("exit", (code) => resolve(code)));
    this.process.kill(signal);
    return gone;
  }

  async put(group, key, value, headers = {}) {
    const url = new URL(`v1/entry?${new URLSearchParams({ group, key })}`, this.url);
    const answer = await fetch(url, { method: "PUT", body: value, headers });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  }

  async close() {
    if (this.process?.exitCode === null && this.process.signalCode === null) await this.end("SIGKILL");
    rmSync(this.folder, { recursive: true });
  }
}

// One browser for all tests of a file.
export function browse() {
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}

// Opens the server's page, and makes an `EventSource` there as a user would. What it is told is in `window.told`, what
// it would hold as a copy of the store in `window.copy`.
export async function watch(page, query) {
  await page.evaluate((query) => {
    window.told = [];
    window.copy = {};
    const source = new EventSource(`/v1/watch?${query}`);
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      window.told.push(event.value ?? event.kind);
      const place = `${event.group}/${event.key}`;
      if (event.kind === "set") window.copy[place] = event.value;
      else delete window.copy[place];
    };
    for (const mark of ["reset", "ready", "lagged", "bye", "trouble"]) {
      source.addEventListener(mark, (message) => {
        window.told.push(mark === "reset" ? `reset: ${JSON.parse(message.data).reason}` : mark);
        if (mark === "reset") window.copy = {};
      });
    }
  }, query);
}

export async function until(page, condition, argument) {
  await page.waitForFunction(condition, argument, { timeout: LIMIT });
}
