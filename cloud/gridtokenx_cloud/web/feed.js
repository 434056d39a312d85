// What happened, newest first; every text is set as text.

import { byId, clone } from "./dom.js";
import { count, kwh, several, shorten, tokens, when } from "./format.js";

const KEPT = 60;

// Each kind of event in words: {kind, sign, title, text, signature}.
const WORDS = {
  MeterReadingReceived: (d) => ({
    kind: d.status === "held" ? "warn" : "reading",
    sign: d.status === "held" ? "!" : "✓",
    title: d.status === "held" ? "Reading held for review" : d.status === "late" ? "Late reading stored" : "Reading stored",
    text: `${d.meter_id} · ${d.credit_wh > 0 ? `${kwh(d.credit_wh)} credited` : "nothing to credit"} · export register ${kwh(d.export_wh)}`,
  }),
  MeterReadingValidationFailed: (d) => ({
    kind: "warn",
    sign: "!",
    title: d.outcome === "held" ? "Reading held for review" : "Reading refused",
    text: `${d.meter_id ?? "unknown meter"} · ${d.error_reason}`,
  }),
  TokensMinted: (d) => ({
    kind: "mint",
    sign: "◆",
    title: `${tokens(d.tokens_minted, d.decimals)} tokens minted`,
    text: `${d.meters.map((meter) => meter.meter_id).join(", ") || d.user_id} · batch ${d.batch_id} · slot ${count(d.slot)}`,
    signature: d.transaction_signature,
  }),
  BatchMintingCompleted: (d) => ({
    kind: "mint",
    sign: "▣",
    title: `Batch ${d.batch_id} is final`,
    text: `${several(d.total_readings, "reading")} · ${several(d.recipients, "owner")} · ${kwh(d.total_wh)} · fee ${count(d.fee_lamports)} lamports`,
    signature: d.transaction_signature,
  }),
  MintingFailed: (d) => ({
    kind: "warn",
    sign: "!",
    title: d.next_retry_at ? "Minting put off" : "Minting waits for the operator",
    text: `${d.meter_id} · ${d.kwh_amount} kWh · ${d.error_reason}`,
  }),
};

export class Feed {
  #list = byId("feed");
  #empty = byId("feed-empty");
  #seen = new Set();

  constructor() {
    this.clear();
    this.#list.addEventListener("click", (click) => copy(click.target.closest("[data-signature]")));
  }

  clear() {
    this.#seen.clear();
    this.#list.replaceChildren();
    this.#list.hidden = true;
    this.#empty.hidden = false;
  }

  // An event as it comes from the stream; twice the same is shown once.
  add(event, fresh = true) {
    const describe = WORDS[event.type];
    if (!describe || event.data.kind === "sample") return;
    const key = event.type === "TokensMinted" ? `mint-${event.data.batch_id}-${event.data.user_id}` : event.id;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    const words = describe(event.data);
    const { node, fields } = clone("entry-template");
    node.dataset.kind = words.kind;
    node.classList.toggle("fresh", fresh);
    fields.sign.textContent = words.sign;
    fields.title.textContent = words.title;
    fields.text.textContent = words.text;
    fields.time.textContent = when(event.time);
    fields.time.dateTime = event.time;
    if (words.signature) {
      fields.proof.hidden = false;
      fields.signature.textContent = shorten(words.signature);
      fields.signature.title = words.signature;
      fields.copy.dataset.signature = words.signature;
      fields.copy.setAttribute("aria-label", `Copy the transaction signature ${shorten(words.signature)}`);
    }
    this.#list.prepend(node);
    this.#list.hidden = false;
    this.#empty.hidden = true;
    while (this.#list.children.length > KEPT) this.#list.lastElementChild.remove();
  }

  // Mints of before, from the API; shown as if they had come as events.
  seed(mints, decimals) {
    for (const mint of mints.filter((one) => one.state === "final").reverse()) {
      const data = { ...mint, tokens_minted: mint.amount_base_units, decimals };
      this.add({ type: "TokensMinted", id: "", time: mint.final_at, data }, false);
    }
  }
}

async function copy(button) {
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.signature);
    button.textContent = "Copied";
  } catch {
    // No clipboard without TLS: show it whole, to be selected by hand.
    button.previousElementSibling.textContent = button.dataset.signature;
    button.textContent = "Select it";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}
