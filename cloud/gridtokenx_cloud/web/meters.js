// One card per meter, grouped by owner for staff.

import * as api from "./api.js";
import { WINDOW_MS, draw } from "./chart.js";
import { byId, clone, setText } from "./dom.js";
import { FLOW_ARROWS, FLOW_WORDS, age, flow, kwh, minute, power, range, serverNow, shorten, tokens } from "./format.js";

const STALE_MS = 120_000;
const CHARTS_FETCHED = 24;

export class Meters {
  #root = byId("meters");
  #cards = new Map(); // meter_id -> {node, fields, meter, points}
  #groups = "";

  clear() {
    this.#cards.clear();
    this.#groups = "";
    this.#root.replaceChildren();
  }

  // Shows what the API says; keeps cards and their charts.
  show(list, summary, grouped) {
    const known = list.map((meter) => `${meter.user_id}/${meter.meter_id}`).join("\n");
    for (const meter of list) this.#card(meter.meter_id).meter = meter;
    if (known !== this.#groups || list.length === 0) {
      this.#groups = known;
      this.#arrange(list, grouped);
    }
    if (grouped) this.#totals(summary);
    for (const meter of list) {
      this.#takePower(meter);
      this.#render(this.#cards.get(meter.meter_id));
    }
  }

  #card(meterId) {
    let card = this.#cards.get(meterId);
    if (card === undefined) {
      const { node, fields } = clone("meter-template");
      card = { node, fields, meter: null, points: [] };
      node.querySelector("details").addEventListener("toggle", () => this.#table(card));
      this.#cards.set(meterId, card);
      if (this.#cards.size <= CHARTS_FETCHED) this.#fetchPower(meterId, card);
    }
    return card;
  }

  async #fetchPower(meterId, card) {
    const answer = await api.power(meterId, WINDOW_MS / 60_000).catch(() => ({ items: [] }));
    const older = answer.items.map((item) => ({ t: item.at_ms, w: item.power_w }));
    const first = card.points[0]?.t ?? Infinity;
    card.points = [...older.filter((point) => point.t < first), ...card.points];
    this.#render(card);
  }

  #arrange(list, grouped) {
    this.#root.replaceChildren();
    if (list.length === 0) {
      const empty = document.createElement("p");
      empty.className = "card empty";
      empty.textContent = "No meter is enrolled for you yet. Once your operator enrols one, it appears here with its first reading.";
      this.#root.append(empty);
      return;
    }
    const owners = new Map();
    for (const meter of list) {
      if (!owners.has(meter.user_id)) owners.set(meter.user_id, []);
      owners.get(meter.user_id).push(meter);
    }
    for (const [userId, meters] of owners) {
      const { node, fields } = clone("owner-template");
      node.dataset.owner = userId;
      fields.name.textContent = userId;
      // An owner needs no name above the own meters; screen readers keep the heading's level.
      node.querySelector(".owner-head").classList.toggle("visually-hidden", !grouped);
      node.querySelector(".meters").append(...meters.map((m) => this.#cards.get(m.meter_id).node));
      this.#root.append(node);
    }
  }

  #totals(summary) {
    const owners = new Map(summary.owners.map((owner) => [owner.user_id, owner]));
    for (const node of this.#root.children) {
      const owner = owners.get(node.dataset.owner);
      if (owner === undefined) continue;
      const minted = tokens(owner.minted_base_units, summary.decimals);
      const text = `${minted} tokens minted · ${kwh(owner.waiting_wh)} waiting · wallet ${shorten(owner.wallet)}`;
      setText(node.querySelector("[data-f=totals]"), text);
    }
  }

  #takePower(meter) {
    if (meter.power_w !== null) this.sample(meter.meter_id, Date.parse(meter.power_at), meter.power_w);
  }

  // A live value; older ones than what is shown are late and say nothing new.
  sample(meterId, t, w) {
    const card = this.#cards.get(meterId);
    if (card === undefined || t <= (card.points.at(-1)?.t ?? 0)) return false;
    card.points.push({ t, w });
    this.#render(card);
    return true;
  }

  // Power of all meters together; null as long as none is fresh.
  total() {
    const fresh = [...this.#cards.values()].map((card) => card.points.at(-1)).filter((point) => point && serverNow() - point.t < STALE_MS);
    return { watts: fresh.length ? fresh.reduce((sum, point) => sum + point.w, 0) : null, fresh: fresh.length, all: this.#cards.size };
  }

  tick() {
    for (const card of this.#cards.values()) if (card.meter) this.#render(card);
  }

  #render(card) {
    const { node, fields, meter } = card;
    const now = serverNow();
    const newest = card.points.at(-1);
    card.points = card.points.filter((point) => point.t >= now - WINDOW_MS || point === newest);
    const shown = card.points.filter((point) => point.t >= now - WINDOW_MS);
    setText(fields.name, meter.meter_id);
    // An old value is not the power now: it is named as the last one, and no longer shown large.
    const live = newest !== undefined && now - newest.t <= STALE_MS;
    const direction = newest ? flow(newest.w) : "none";
    const last = newest ? power(newest.w).join("\u00a0") : "";
    node.toggleAttribute("data-stale", !live);
    fields.now.dataset.flow = live ? direction : "none";
    setText(fields.arrow, live ? FLOW_ARROWS[direction] : "");
    setText(fields.power, live ? last : "–");
    const old = newest ? `last value ${last}, ${FLOW_WORDS[direction]}` : "waiting for the first value";
    setText(fields.direction, live ? FLOW_WORDS[direction] : old);
    setText(fields.age, newest ? age(newest.t) : "");
    fields.caption.hidden = shown.length < 2;
    if (shown.length > 1) {
      fields.chart.replaceChildren(draw(shown, now));
      setText(fields.from, "10 min ago");
      setText(fields.range, range(shown.map((point) => point.w)));
    } else {
      const none = document.createElement("p");
      none.className = "none";
      none.textContent = newest ? "The chart begins with the next live values." : "Waiting for live values from this meter.";
      fields.chart.replaceChildren(none);
    }
    setText(fields.export, kwh(meter.export_today_wh));
    setText(fields.import, kwh(meter.import_today_wh));
    setText(fields.minted, kwh(meter.minted_wh));
    setText(fields.waiting, kwh(meter.waiting_wh));
  }

  #table(card) {
    if (!card.node.querySelector("details").open) return;
    const rows = card.points.slice(-60).reverse().map((point) => {
      const row = document.createElement("tr");
      const time = row.insertCell();
      time.textContent = minute(point.t);
      row.insertCell().textContent = power(point.w).join(" ");
      return row;
    });
    card.fields.rows.replaceChildren(...rows);
  }
}
