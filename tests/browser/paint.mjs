// How soon the page at PAGE is there: its first paint, and until ROWS rows of jobs are shown. Best and middle of five.
import { launch, pageOf } from "./browser.mjs";

const browser = await launch();
const found = [];
for (let round = 0; round < 5; round += 1) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 } });
  const page = await pageOf(context, []);
  await page.goto(process.env.PAGE, { waitUntil: "commit" });
  await page.waitForFunction((rows) => document.querySelectorAll("tbody tr").length >= rows, Number(process.env.ROWS), { polling: 5 });
  found.push(await page.evaluate(() => {
    const rows = performance.now();
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    return { paint: paint?.startTime ?? NaN, rows };
  }));
  await context.close();
}
await browser.close();
const middle = (name) => Math.round(found.map((one) => one[name]).sort((one, other) => one - other)[2]);
console.log(`first paint ${middle("paint")} ms, all rows ${middle("rows")} ms`);
