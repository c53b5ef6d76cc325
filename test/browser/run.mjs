// Drives the console of a demo in Chromium: run.mjs live|plain BASE LOGIN TOKEN_FILE [SHOTS]. What does not hold is thrown; what holds is
// printed.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const tools = process.env.PROTIP_BROWSER;
const require = createRequire(tools + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [part, base, login, tokenFile, shots] = process.argv.slice(2);
const patience = 120_000;

const browser = await chromium.launch({
  executablePath: tools + "/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// visitor is a browser of its own. Whatever its console says is wrong is a failure: a breach of the pages' own policy among it.
async function visitor(options) {
  const context = await browser.newContext({ baseURL: base, viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  page.said = [];
  page.on("console", (m) => { if (["error", "warning"].includes(m.type())) page.said.push(m.text()); });
  page.on("pageerror", (e) => page.said.push(String(e)));
  return page;
}

// hot is the tip of the vCenters' hot host.
const hot = 'section.group:not(:has(h2:has-text("hv-prod-01"))) li.tip.active a.sum:has-text("of its CPU")';

// until asks again and again, as who has no script: by loading the page anew.
async function until(page, what, ok) {
  for (const end = Date.now() + patience; Date.now() < end; await page.waitForTimeout(700)) {
    if (await ok()) return;
    // A page that loads itself anew at the same moment ends this load, and is as good.
    await page.reload().catch((err) => { if (!String(err).includes("ERR_ABORTED")) throw err; });
  }
  throw new Error(`${what}: not within ${patience / 1000} s at ${page.url()}:\n${await page.locator("main").innerText()}`);
}

// implement presses the button on a tip's page. What cannot be done at this moment is tried again: the agent's numbers may be too old.
async function implement(page, why) {
  const address = page.url();
  const button = page.locator("#act button.primary");
  await until(page, "a plan that can be carried out", async () => {
    if (page.url() !== address) await page.goto(address);
    if ((await button.count()) === 0) return false;
    await page.locator("#act input[name=why]").fill(why);
    await button.click();
    await page.waitForLoadState();
    return page.url() === address && (await page.locator(".state.in_progress").count()) > 0;
  });
}

// live: from the inbox to a tip that is resolved, on pages that keep themselves up to date.
async function live() {
  const page = await visitor({ colorScheme: "light" });
  await page.goto(login);
  await page.evaluate(() => { window.loadedOnce = true; });
  const find = page.locator("#q");
  await find.focus();
  await page.keyboard.type("esx");
  const tip = page.locator(hot).first();
  await tip.waitFor();
  assert.equal(await page.evaluate(() => window.loadedOnce), true, "the inbox was loaded anew");
  assert.equal(await find.inputValue(), "esx", "what was typed is gone");
  assert.equal(await page.evaluate(() => document.activeElement.id), "q", "the focus is gone");
  await page.keyboard.press("Escape");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "q", "the key / does not lead to the search");
  await page.keyboard.press("Escape");
  await shoot(page, "tips");
  await tip.click();
  await page.waitForURL("**/tips/*");
  await page.locator("figure .level.threshold").first().waitFor({ state: "attached" });
  await page.locator(".effect .host").first().waitFor();
  await page.locator("#alternatives").waitFor();
  await shoot(page, "tip");
  await implement(page, "seen in the browser test");
  await page.evaluate(() => { window.loadedOnce = true; });
  await page.locator(".state.in_progress").first().waitFor();
  await page.locator(".under .stages .here").first().waitFor();
  await shoot(page, "moving");
  await page.locator(".facts .state.resolved").waitFor();
  assert.equal(await page.evaluate(() => window.loadedOnce), true, "the tip's page was loaded anew");
  await page.locator(".outcome.recovered").first().waitFor();
  await shoot(page, "resolved");
  await page.goto("/audit");
  await page.getByText("seen in the browser test").first().waitFor();
  assert.deepEqual(page.said.filter((s) => !s.includes("status of 4")), []);
  console.log("live: from the inbox to a tip that is resolved, without loading anew");
  return page;
}

// plain: the same with no script at all, and the login form.
async function plain() {
  const page = await visitor({ javaScriptEnabled: false });
  await page.goto("/login");
  await page.locator("#password").fill(readFileSync(tokenFile, "utf8").trim());
  await page.locator("button", { hasText: "Log in" }).click();
  await page.waitForURL(base + "/");
  const tip = page.locator(hot).first();
  await until(page, "a tip", async () => (await tip.count()) > 0);
  await tip.click();
  await implement(page, "without a script");
  await until(page, "the tip is resolved", async () => (await page.locator(".facts .state.resolved").count()) > 0);
  const other = page.locator('li.tip.active a.sum').first();
  await page.goto("/");
  await until(page, "another tip", async () => (await other.count()) > 0);
  await other.click();
  await page.locator('#act button[value="8h"]').click();
  await page.locator(".facts .state.dismissed").waitFor();
  await page.locator("button", { hasText: "Show it again" }).click();
  await page.locator(".facts .state.dismissed").waitFor({ state: "detached" });
  await page.goto("/fleet");
  await page.locator("table.fleet tbody th[scope=row] a").first().click();
  await page.locator('table a[href^="/hosts/"]').nth(1).click();
  const evacuate = page.locator('.wishes button[value="evacuate"]');
  await evacuate.click();
  await page.waitForURL("**/plan?*");
  await until(page, "an evacuation on its way", async () => {
    if ((await page.locator("#act button.primary:enabled").count()) === 0) return false;
    const address = page.url();
    await page.locator("#act input[name=why]").fill("evacuated without a script");
    const agree = page.locator('#act input[name="downtime"]');
    if ((await agree.count()) > 0) await agree.check();
    await page.locator("#act button.primary").click();
    await page.waitForLoadState();
    if (page.url() !== address) await page.goto(address);
    return (await page.locator(".under .stages").count()) > 0;
  });
  await page.goto("/audit");
  await page.getByText("evacuated without a script").first().waitFor();
  await page.goto("/packs");
  await page.locator('#pack-host-pressure select[name="since"]').selectOption("6h");
  await page.locator("#pack-host-pressure form button").click();
  await until(page, "a replay", async () => (await page.getByText("in the last 6h").count()) > 0);
  await page.goto("/?refresh=30");
  assert.equal(await page.locator('meta[http-equiv="refresh"]').getAttribute("content"), "30");
  assert.deepEqual(page.said.filter((s) => !s.includes("status of 4")), []);
  console.log("plain: log in, implement, resolved, snoozed and shown again, a host evacuated, a pack replayed, without a script");
}

// look goes through every page in light and in dark: axe finds nothing, and nothing is wider than a phone.
async function look(page) {
  const first = async (path, css) => {
    await page.goto(path);
    return page.locator(css).first().getAttribute("href");
  };
  const cluster = await first("/fleet", "table.fleet tbody th[scope=row] a");
  const host = await first(cluster, 'table a[href^="/hosts/"]');
  const vm = await first(host, 'table a[href^="/vms/"]');
  const tip = await first("/?state=all", "a.sum");
  await page.goto("/reports/host-utilization?since=1d");
  await page.getByText("protip report host-utilization").first().waitFor();
  await page.goto("/packs/host-pressure/replay?since=6h");
  await page.getByText("in the last 6h").first().waitFor();
  const plan = "/plan?what=evacuate&host=" + encodeURIComponent(decodeURIComponent(host.replace("/hosts/", "")));
  const pages = {
    inbox: "/", all: "/?state=all&group=severity", onetip: tip, fleet: "/fleet", cluster, host, vms: "/vms?sort=-contention", none: "/vms?q=nobody", vm, search: "/search?q=esx",
    actions: "/actions", sources: "/sources", reports: "/reports", report: "/reports/host-utilization?since=1d", packs: "/packs", replay: "/packs/host-pressure/replay?since=6h", plan, audit: "/audit", missing: "/nowhere", login: "/login",
  };
  for (const [name, path] of Object.entries(pages)) {
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.goto(path);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
      const found = violations.map((v) => `${v.id}: ${v.help}\n  ${v.nodes.slice(0, 3).map((n) => n.html + " " + (n.any[0]?.message ?? "")).join("\n  ")}`);
      assert.deepEqual(found, [], `axe on ${path} in ${scheme}`);
    }
    await page.emulateMedia({ colorScheme: "light" });
    await shoot(page, name);
  }
  assert.deepEqual(page.said.filter((s) => !s.includes("status of 4")), []);
  console.log(`look: axe finds nothing on ${Object.keys(pages).length} pages, in light and in dark`);
}

// shoot holds that a page has room on a desk and on a phone, and keeps its picture if that is asked for.
async function shoot(page, name) {
  for (const width of [1280, 390]) {
    await page.setViewportSize({ width, height: 900 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${name} is ${wide} wide on ${width}`);
    if (shots) await page.screenshot({ path: `${shots}/${name}-${width}.png`, fullPage: width === 390, animations: "disabled" });
  }
  await page.setViewportSize({ width: 1280, height: 900 });
}

try {
  if (part === "plain") await plain();
  else await look(await live());
} finally {
  await browser.close();
}
