// The page: signed in or not, totals, and what connects API, events, meters and feed.

import * as api from "./api.js";
import { byId, setFigure, setText } from "./dom.js";
import { EventStream } from "./events.js";
import { Feed } from "./feed.js";
import { FLOW_ARROWS, FLOW_WORDS, count, energy, flow, kwh, power, tokens } from "./format.js";
import { Meters } from "./meters.js";

const REFRESH_AFTER_MS = 400;
const REFRESH_EVERY_MS = 60_000;

const meters = new Meters();
const feed = new Feed();
let staff = false;
let refreshTimer = 0;
let refreshedAt = 0;

const stream = new EventStream({
  onState: showState,
  onEvent: take,
  onReset: () => load(),
  onSignedOut: () => showSignIn("Your session has ended. Sign in again."),
});

function showState(state, words) {
  const pill = byId("state");
  pill.hidden = false;
  pill.dataset.state = state;
  setText(pill, words);
}

function take(event) {
  if (event.type === "MeterReadingReceived") {
    const { meter_id, active_power_w } = event.data;
    if (active_power_w !== undefined) meters.sample(meter_id, Date.parse(event.time), active_power_w);
    showPower();
    if (event.data.kind === "sample") return;
  }
  feed.add(event);
  refreshSoon();
}

// Totals come from the API only: an event says that something changed, not what the sum is now.
function refreshSoon() {
  if (refreshTimer) return;
  const pause = staff ? 3000 : 1000;
  const wait = Math.max(REFRESH_AFTER_MS, refreshedAt + pause - Date.now());
  refreshTimer = setTimeout(refresh, wait);
}

async function refresh() {
  clearTimeout(refreshTimer);
  refreshTimer = 0;
  refreshedAt = Date.now();
  try {
    const [list, summary] = await Promise.all([api.meters(), api.summary()]);
    meters.show(list.items, summary, staff);
    showTotals(list.items, summary);
    showPower();
    return summary;
  } catch (fault) {
    if (fault.status === 401) signedOut();
    return null;
  }
}

async function load() {
  const summary = await refresh();
  if (summary === null) return;
  const mints = await api.mints().catch(() => ({ items: [] }));
  feed.seed(mints.items, summary.decimals);
}

const sum = (list, name) => {
  const known = list.map((item) => item[name]).filter((value) => value !== null);
  return known.length ? known.reduce((total, value) => total + value, 0) : null;
};

function showTotals(list, summary) {
  setText(byId("export-today"), kwh(sum(list, "export_today_wh")));
  setText(byId("import-today"), kwh(sum(list, "import_today_wh")));
  const dated = list.some((meter) => meter.export_today_wh !== null);
  setText(byId("today-words"), dated ? "since midnight UTC" : "waiting for the first reading since midnight UTC");
  setFigure(byId("tokens"), tokens(summary.minted_base_units, summary.decimals), "tokens");
  setText(byId("tokens-words"), summary.minted_wh ? `for ${kwh(summary.minted_wh)} fed in` : "none yet");
  setFigure(byId("waiting"), ...energy(summary.waiting_wh));
  const nothing = summary.minted_wh === 0 ? "waits for the first export" : "everything is minted";
  setText(byId("waiting-words"), summary.waiting_wh ? "credited, on its way to the chain" : nothing);
}

function showPower() {
  const { watts, fresh, all } = meters.total();
  const words = byId("power-words");
  if (watts === null) {
    setText(byId("power-now"), "–");
    delete words.dataset.flow;
    setText(words, all ? "waiting for live values" : "waiting for the first meter");
    return;
  }
  const direction = flow(watts);
  setFigure(byId("power-now"), ...power(watts));
  words.dataset.flow = direction;
  const missing = fresh < all ? ` · ${count(fresh)} of ${count(all)} meters` : "";
  setText(words, `${FLOW_ARROWS[direction]} ${FLOW_WORDS[direction]}${missing}`);
}

function showSignIn(reason = "") {
  stream.stop();
  clearTimeout(refreshTimer);
  refreshTimer = 0;
  meters.clear();
  feed.clear();
  byId("live").hidden = byId("account").hidden = byId("state").hidden = true;
  byId("sign-in").hidden = false;
  setText(byId("sign-in-error"), reason);
  byId("token").value = "";
  byId("token").focus();
}

const signedOut = () => showSignIn("Your session has ended. Sign in again.");

function showLive(account) {
  staff = account.role !== "owner";
  meters.clear();
  feed.clear();
  setText(byId("who"), account.user_id ?? account.label);
  byId("sign-in").hidden = true;
  byId("live").hidden = byId("account").hidden = false;
  showState("waiting", "Connecting");
  load();
  stream.start();
}

async function signIn(token) {
  const button = byId("sign-in-form").querySelector("button");
  button.disabled = true;
  setText(byId("sign-in-error"), "");
  try {
    showLive(await api.signIn(token));
  } catch (fault) {
    showSignIn(fault.message);
  } finally {
    button.disabled = false;
  }
}

async function begin() {
  const link = /^#token=(gtx_[\w-]+)$/.exec(location.hash);
  if (location.hash.startsWith("#token=")) {
    // Out of the address bar and the history before anything else happens.
    history.replaceState(null, "", location.pathname);
  }
  if (link) {
    await signIn(link[1]);
    return;
  }
  try {
    showLive(await api.me());
  } catch (fault) {
    showSignIn(fault.status === 401 ? "" : fault.message);
  }
}

byId("sign-in-form").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const token = byId("token").value.trim();
  byId("token").value = "";
  signIn(token);
});
byId("sign-out").addEventListener("click", async () => {
  stream.stop();
  await api.signOut().catch(() => null);
  showSignIn();
});
// A sign-in link opened in a tab that already shows the page.
addEventListener("hashchange", () => location.hash.startsWith("#token=") && begin());
setInterval(() => {
  if (byId("live").hidden) return;
  meters.tick();
  showPower();
  if (Date.now() - refreshedAt > REFRESH_EVERY_MS) refreshSoon();
}, 5000);

begin();
