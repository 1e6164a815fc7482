// A real Chromium, as Debian has it, without a window.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const PATHS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export function launch() {
  const executablePath = PATHS.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("no Chromium here: apt-get install chromium");
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
}

// A page whose faults are collected in `faults`: exceptions, errors in the console, dialogs.
export async function pageOf(context, faults) {
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(`exception: ${error.stack}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.location().url.endsWith("/api/schedules")) faults.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on("dialog", (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  return page;
}
