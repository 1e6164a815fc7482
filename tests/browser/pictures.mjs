// Pictures of the page at PAGE, into the folder PICTURES: see docs/pictures/take.
import { launch, pageOf } from "./browser.mjs";

const browser = await launch();
const faults = [];

async function take(name, hash, { width = 1240, height = 780, dark = false, whole = false, settle = 700, wait, act } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", timezoneId: "Europe/Berlin", reducedMotion: "reduce" });
  const page = await pageOf(context, faults);
  await page.goto(process.env.PAGE + hash);
  await page.waitForSelector("#connection.live");
  await page.waitForSelector(wait);
  await act?.(page);
  await page.waitForTimeout(settle);
  await page.screenshot({ path: `${process.env.PICTURES}/${name}.png`, fullPage: whole });
  await context.close();
}

// Each takes about a second: where one has ended before it is shown, the next one is looked at.
await take("running", "#jobs?name=upload-N26E*&state=running", { wait: "section:nth-of-type(1) tbody tr", height: 1000, settle: 50, act: async (page) => {
  for (let tries = 0; tries < 12; tries++) {
    await page.goto(`${process.env.PAGE}#jobs?name=upload-N26E*&state=running&since=${tries + 1}h`);
    await page.click("section:nth-of-type(1) tbody tr:nth-child(1) a");
    if (await page.waitForSelector(".bar.open", { timeout: 1_500 }).catch(() => null)) return;
  }
  throw new Error("no job was caught while it ran");
} });
await take("jobs", "#jobs", { wait: "section:nth-of-type(1) tbody tr" });
await take("trace", "#trace/upload-N26B002", { wait: ".event", height: 1180 });
await take("trace-dark", "#trace/lot-N26A002?level=info", { wait: ".u-over", dark: true, height: 1180 });
await take("runs", "#runs/lot-N*A*", { wait: "tbody tr", act: async (page) => {
  await page.click("tbody tr:nth-child(2) input");
  await page.click("tbody tr:nth-child(4) input");
} });
await take("compare", "#compare?run=lot-N26A002&other=lot-N26A005", { wait: "tbody tr", height: 900 });
await take("sidecar", "#sidecar", { wait: "code.line", height: 1100 });
await take("phone", "#jobs", { wait: "section:nth-of-type(2) tbody tr", width: 390, height: 780 });
await browser.close();
if (faults.length) throw new Error(faults.join("\n"));
