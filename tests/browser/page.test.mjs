// The live page in a real Chromium against a real sidecar: see tests/processes/test_page_browser.py, which starts it and says where it is.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { readFile } from "node:fs/promises";
import { after, afterEach, before, test } from "node:test";
import { launch, pageOf } from "./browser.mjs";

const { PAGE } = process.env;
const PATIENCE = 30_000;
const AXE = await readFile(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

let browser;
let context;
let faults = [];
before(async () => {
  browser = await launch();
  context = await browser.newContext({ viewport: { width: 1200, height: 800 }, timezoneId: "America/New_York" });
  context.setDefaultTimeout(PATIENCE);
});
after(async () => {
  await browser.close();
  process.stdin.destroy(); // else Node.js waits for more of it
});
afterEach(async () => {
  for (const page of context.pages()) await page.close(); // what a failed test has left
});

// What a test asks of its starter, one line each way.
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ask(what) {
  process.stdout.write(`\n>>> ${JSON.stringify(what)}\n`);
  const { value } = await answers.next();
  return JSON.parse(value);
}

async function open(hash) {
  const page = await pageOf(context, faults);
  await page.goto(PAGE + hash);
  await page.waitForSelector("#connection.live");
  return page;
}

async function without(page) {
  await page.close();
  const found = faults;
  faults = [];
  assert.deepEqual(found, []);
}

async function serious(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  return violations.filter((one) => ["serious", "critical"].includes(one.impact)).map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
}

const VIEWS = {
  "#jobs": "text=load-old-3",
  "#runs": "text=load-old-*",
  "#runs/load-old-*": ".strip a >> nth=2",
  "#compare?run=load-old-1&other=load-old-2": "td .pair >> nth=0",
  "#trace/load-old-1": ".event",
  "#sidecar": "code.line",
};
for (const [hash, shown] of Object.entries(VIEWS)) {
  test(`${hash} is shown, fits 390 px, and axe finds nothing serious, light and dark`, async () => {
    const page = await open(hash);
    await page.waitForSelector(shown);
    assert.deepEqual(await serious(page), []);
    await page.emulateMedia({ colorScheme: "dark" });
    assert.deepEqual(await serious(page), []);
    await page.setViewportSize({ width: 390, height: 800 });
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    const wide = await page.evaluate(() => [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > 391).map((one) => one.outerHTML.slice(0, 80)));
    assert.ok(width <= 390, `${width} px wide: ${wide.slice(0, 5).join(" ")}`);
    await without(page);
  });
}

test("a job moves while one looks, in the list and in its own page, without a reload", async () => {
  const list = await open("#jobs");
  await ask({ progress: "moving-1", percent: 10, span: "work" });
  const bar = list.locator("tr", { hasText: "moving-1" }).locator("[role=progressbar]");
  await bar.and(list.locator("[aria-valuenow='10']")).waitFor();
  const one = await open("#trace/moving-1");
  const open_bar = one.locator(".bar.open");
  await open_bar.waitFor();
  const took = one.locator(".span .took").first();
  const before_ = await took.textContent();
  await ask({ progress: "moving-1", percent: 55, event: "half of it" });
  await bar.and(list.locator("[aria-valuenow='55']")).waitFor();
  await one.locator("[aria-valuenow='55']").waitFor();
  await one.locator(".event", { hasText: "half of it" }).waitFor();
  await one.waitForFunction(([before_]) => document.querySelector(".span .took").textContent !== before_, [before_]);
  await ask({ progress: "moving-1", percent: 100, status: "done", end: true });
  await one.locator(".title .state.done").waitFor();
  await one.locator(".receipt", { hasText: "none missing" }).waitFor();
  await list.locator("section", { hasText: "Ended" }).locator("tr", { hasText: "moving-1" }).waitFor();
  await list.close();
  await without(one);
});

test("eight tabs stay live by one stream", async () => {
  const tabs = [];
  for (let number = 0; number < 8; number += 1) tabs.push(await open("#jobs"));
  await ask({ progress: "eight-1", percent: 20 });
  for (const tab of tabs) await tab.locator("tr", { hasText: "eight-1" }).locator("[aria-valuenow='20']").waitFor();
  await ask({ progress: "eight-1", percent: 70 });
  for (const tab of tabs) await tab.locator("tr", { hasText: "eight-1" }).locator("[aria-valuenow='70']").waitFor();
  assert.equal((await ask({ streams: true })).streams, 1);
  for (const tab of tabs.slice(1)) await tab.close();
  // Hidden: nobody looks, and nothing is kept open.
  await tabs[0].evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  assert.equal((await ask({ streams: true, until: 0 })).streams, 0);
  await tabs[0].evaluate(() => {
    Object.defineProperty(document, "hidden", { value: false, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  assert.equal((await ask({ streams: true, until: 1 })).streams, 1);
  await ask({ progress: "eight-1", percent: 100, status: "done" });
  await without(tabs[0]);
});

test("what clients send is text, wherever it is shown", async () => {
  const evil = '<img src=x onerror="document.title=1"><script>alert(1)</script>';
  await ask({ hostile: evil });
  for (const hash of ["#jobs", "#runs", "#trace/hostile-1", "#trace/hostile-1?text=%3Cimg%20src%3Dx%3E", "#sidecar", "#runs/%3Cimg%20src%3Dx%20onerror%3D1%3E", "#trace/%3Cimg%20src%3Dx%3E"]) {
    const page = await open(hash);
    await page.waitForFunction(() => document.querySelector("main").textContent.length > 40);
    if (hash === "#trace/hostile-1") await page.locator(".event", { hasText: "<script>alert(1)</script>" }).waitFor();
    assert.equal(await page.evaluate(() => document.querySelectorAll("main img, main script, main iframe").length), 0);
    assert.ok(!(await page.title()).startsWith("1"));
    await page.close();
  }
  faults = faults.filter((one) => !one.includes("404")); // a trace that is none
  const page = await open("#jobs");
  await without(page);
});

test("after a restart of the sidecar the page comes back by itself, and says meanwhile that it waits", async () => {
  const page = await open("#jobs");
  await ask({ stop: true });
  await page.locator("#connection.bad", { hasText: "no answer from the sidecar" }).waitFor();
  await ask({ start: true });
  await page.locator("#connection.live").waitFor();
  await ask({ progress: "later-1", percent: 33 });
  await page.locator("tr", { hasText: "later-1" }).locator("[aria-valuenow='33']").waitFor();
  faults = faults.filter((one) => !/ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY/.test(one));
  await ask({ progress: "later-1", percent: 100, status: "done" });
  await without(page);
});

test("everything can be reached by the keyboard", async () => {
  const page = await open("#jobs");
  await page.locator("text=load-old-3").first().waitFor();
  const focused = () => page.evaluate(() => `${document.activeElement.tagName} ${document.activeElement.textContent.slice(0, 40)}`);
  await page.keyboard.press("Tab");
  assert.match(await focused(), /^A To the content/);
  await page.keyboard.press("Enter");
  assert.match(await focused(), /^MAIN/);
  for (let step = 0; step < 6 && !(await focused()).startsWith("A "); step += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForSelector("h1 >> text=/-/");
  assert.match(page.url(), /#trace\//);
  await page.goto(`${PAGE}#trace/load-old-1`);
  await page.locator(".event", { hasText: "parsed" }).waitFor();
  await page.locator(".span a").first().waitFor();
  await page.locator("#main").focus();
  const reached = new Set();
  for (let step = 0; step < 40; step += 1) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.closest(".span") ? "span" : document.activeElement.className || document.activeElement.name || document.activeElement.tagName));
  }
  for (const one of ["span", "log", "level", "text", "copy"]) assert.ok(reached.has(one), `${one} of ${[...reached]}`);
  await without(page);
});

test("filters live in the address, a span is linked to its lines, and a line to itself", async () => {
  const page = await open("#jobs?state=failed");
  await page.locator("text=load-bad-1").waitFor();
  assert.equal(await page.locator("text=load-old-3").count(), 0);
  await page.selectOption("select[name=state]", "done");
  await page.locator("text=load-old-3").waitFor();
  assert.match(page.url(), /state=done/);
  await page.goto(`${PAGE}#trace/load-old-1`);
  await page.locator(".event", { hasText: "parsed" }).waitFor();
  const all = await page.locator(".event").count();
  await page.locator(".event", { hasText: "parsed" }).locator("a.of").click();
  await page.locator(".chosen", { hasText: "parse" }).waitFor();
  assert.ok((await page.locator(".event").count()) < all);
  await page.locator("text=show all again").click();
  await page.locator(".event >> nth=1").waitFor();
  await page.locator(".event .time").first().click();
  await page.locator(".event.is-chosen").waitFor();
  assert.match(page.url(), /event=/);
  await page.goto(`${PAGE}#trace/load-old-1?event=0000-1`);
  await page.locator(".note", { hasText: "The line that the address names is not among them." }).waitFor();
  await page.goto(`${PAGE}#trace/load-old-1`);
  await page.fill("input[name=text]", "PARSED");
  await page.waitForFunction(() => document.querySelectorAll(".event").length === 1);
  await page.selectOption("select[name=level]", "error");
  await page.waitForFunction(() => document.querySelectorAll(".event").length === 0);
  await without(page);
});

test("two runs that are chosen are compared", async () => {
  const page = await open("#runs/load-old-*");
  await page.locator("tbody input").nth(0).check();
  await page.locator("tbody input").nth(1).check();
  await page.locator("tbody input").nth(2).check();
  assert.equal(await page.locator("tbody input:checked").count(), 2);
  await page.locator("text=Compare the two").click();
  await page.locator(".side >> nth=1").waitFor();
  await page.locator("td", { hasText: "parse" }).first().waitFor();
  await without(page);
});

test("metrics and resources are drawn on the axis of the spans", async () => {
  const page = await open("#trace/load-old-1");
  const plot = page.locator(".plot-line canvas").first();
  await plot.waitFor();
  const drawn = await plot.boundingBox();
  const axis = await page.locator(".axis").boundingBox();
  assert.ok(Math.abs(drawn.x - axis.x) < 2 && Math.abs(drawn.width - axis.width) < 2, JSON.stringify([drawn, axis]));
  await page.locator(".plot-line .u-over").first().hover();
  await page.locator(".plot-line .said", { hasText: " at " }).first().waitFor();
  await without(page);
});

test("a page that is redrawn while many messages come is redrawn at most four times a second", async () => {
  const page = await open("#jobs");
  await ask({ progress: "busy-1", percent: 1 });
  await page.locator("tr", { hasText: "busy-1" }).waitFor();
  await page.evaluate(() => {
    globalThis.redraws = [];
    new MutationObserver(() => globalThis.redraws.push(performance.now())).observe(document.querySelector(".jobs-list"), { subtree: true, childList: true, characterData: true, attributes: true });
  });
  await ask({ busy: "busy-1", seconds: 3 });
  const redraws = await page.evaluate(() => globalThis.redraws);
  // What happens in one task is one redraw.
  const tasks = redraws.filter((at, place) => place === 0 || at - redraws[place - 1] > 5);
  const span = Math.max(1, (redraws.at(-1) - redraws[0]) / 1_000);
  assert.ok(tasks.length > 1 && tasks.length / span <= 6, `${tasks.length} in ${span} s`);
  await without(page);
});

test("where tokens are asked for one logs in, and out, and comes back to where one was", async () => {
  const apart = await browser.newContext({ timezoneId: "UTC" });
  apart.setDefaultTimeout(PATIENCE);
  const page = await pageOf(apart, faults);
  await page.goto(`${process.env.GUARDED}#runs`);
  await page.locator("input[name=token]").waitFor();
  assert.deepEqual(await serious(page), []);
  await page.fill("input[name=token]", "wrong");
  await page.keyboard.press("Enter");
  await page.locator("[role=alert]", { hasText: "not known here" }).waitFor();
  await page.fill("input[name=token]", "right-token");
  await page.click("button");
  await page.locator("#connection.live").waitFor();
  assert.match(page.url(), /\/#runs$/);
  const [cookie] = await apart.cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Lax" && !cookie.value.includes("right-token"), JSON.stringify(cookie));
  assert.equal(await page.evaluate(() => document.cookie), "");
  await page.click("text=Log out");
  await page.locator("input[name=token]").waitFor();
  await page.fill("input[name=token]", "right-token");
  await page.keyboard.press("Enter");
  await page.locator("#connection.live").waitFor();
  // The token leaves the file: so does whoever came by it.
  await ask({ tokens: "another-token" });
  await page.locator("input[name=token]").waitFor();
  faults = faults.filter((one) => !/401|ERR_/.test(one));
  await apart.close();
  assert.deepEqual(faults, []);
});

test("beyond 500 spans the lower levels fold, and open on demand, by the keyboard too", async () => {
  await ask({ spans: "many-1", count: 700 });
  const page = await open("#trace/many-1");
  await page.locator(".span", { hasText: "part 1" }).first().waitFor();
  const rows = page.locator(".span:not(.head):not(.plot-line)");
  assert.equal(await rows.count(), 11);
  const more = page.locator("button", { hasText: "show 70 below" }).first();
  await more.focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("[aria-label=Spans] > .span").length === 81);
  assert.deepEqual(await serious(page), []);
  await page.locator("button", { hasText: /^fold$/ }).first().click();
  await page.waitForFunction(() => document.querySelectorAll("[aria-label=Spans] > .span").length === 11);
  await page.locator(".bar.open").first().waitFor();
  await ask({ progress: "many-1", percent: 100, status: "done" });
  await without(page);
});

test("the sidecar's page is live: what clients dropped, dead letters with how to replay them, a config that was refused", async () => {
  const page = await open("#sidecar");
  await page.locator("code", { hasText: /^wafermon replay .*jsonl$/ }).waitFor();
  await page.locator("td", { hasText: "bad_message: value" }).first().waitFor();
  await ask({ dropped: 17 });
  await page.locator("tr", { hasText: "dropper" }).locator("td", { hasText: /^17$/ }).waitFor();
  await ask({ config: "bad" });
  await page.locator("[role=alert]", { hasText: "nonsense" }).waitFor();
  await ask({ config: "good" });
  await page.locator("[role=alert]", { hasText: "nonsense" }).waitFor({ state: "hidden" });
  await without(page);
});

test("schedules say in words and colour how they are, and when the next run is due", async () => {
  const page = await open("#sidecar");
  const state = (name) => page.locator("tr", { hasText: name }).locator(".state");
  await state("intake").and(page.locator(".not_started", { hasText: /^not started$/ })).waitFor();
  assert.match(await state("intake").getAttribute("title"), /has not begun/);
  await state("nightly").and(page.locator(".waiting")).waitFor();
  await page.locator("tr", { hasText: "nightly" }).locator("td", { hasText: /, in 1[12] h/ }).waitFor();
  await without(page);
});

test("a job that is late by its schedule says so in the list of jobs", async () => {
  const page = await open("#sidecar");
  await page.locator("tr", { hasText: "belated" }).locator(".state.not_started").waitFor();
  await ask({ progress: "belated-1", percent: 3 });
  await page.goto(PAGE + "#jobs");
  const job = page.locator("tr", { hasText: "belated-1" });
  await job.locator(".state.running").waitFor();
  await job.locator(".state.late", { hasText: /^late$/ }).waitFor();
  assert.match(await job.locator(".state.late").getAttribute("title"), /later than its start_grace/);
  await ask({ progress: "belated-1", percent: 100, status: "done" });
  await job.locator(".state.done").waitFor();
  await job.locator(".state.late").waitFor({ state: "detached" });
  await without(page);
});

test("times are in the viewer's zone with UTC on hover, and lines and links can be copied", async () => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await open("#trace/load-old-1");
  const line = page.locator(".event", { hasText: "parsed" });
  const time = line.locator("time");
  const utc = new Date(await time.getAttribute("datetime"));
  const there = new Intl.DateTimeFormat("en-GB", { timeZone: "America/New_York", timeStyle: "medium" }).format(utc);
  assert.ok((await time.textContent()).startsWith(there), there);
  assert.ok((await line.locator(".time").getAttribute("title")).startsWith(utc.toISOString()));
  await line.hover();
  await line.locator("button.copy").click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(copied.startsWith(utc.toISOString()) && copied.includes("info loader parsed rows=7"), copied);
  await page.locator(".title button.copy").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), page.url());
  await without(page);
});

test("the page prints without its controls", async () => {
  const page = await open("#trace/load-old-1");
  await page.waitForSelector(".event");
  await page.emulateMedia({ media: "print" });
  assert.ok(!(await page.locator("nav").isVisible()) && !(await page.locator("form[aria-label='Filter events']").isVisible()));
  assert.ok(await page.locator(".event").first().isVisible());
  await without(page);
});
