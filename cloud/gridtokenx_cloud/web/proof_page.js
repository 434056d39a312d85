// The page at /proof: shows what proof.js finds.

import { byId } from "./dom.js";
import { checkProof, readProof } from "./proof.js";

const MARKS = { ok: "✓", bad: "✗", open: "–" };
const WORDS = { ok: "holds", bad: "does not hold", open: "not checked here" };

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = byId("proof").value;
  const steps = await checkProof(text, byId("gateway").value.trim(), globalThis.crypto?.subtle);
  byId("steps").replaceChildren(...steps.map(shown));
  byId("result-title").textContent = verdict(steps);
  byId("result").hidden = false;
  const proof = readProof(text);
  byId("chain").hidden = proof === null;
  if (proof === null) return;
  const name = encodeURIComponent(proof.transaction);
  byId("transaction").href = `https://explorer.solana.com/tx/${name}`;
  byId("transaction").textContent = `transaction ${proof.transaction.slice(0, 12)}…`;
  byId("memo").textContent = proof.memo || "the one named above";
});

function verdict(steps) {
  if (steps.some((step) => step.state === "bad")) return "The proof does not hold";
  if (steps.some((step) => step.state === "open")) return "Not everything could be checked here";
  return "The proof holds";
}

function shown(step) {
  const item = document.createElement("li");
  item.dataset.state = step.state;
  const head = document.createElement("strong");
  head.textContent = `${MARKS[step.state]} ${step.name}: ${WORDS[step.state]}`;
  const text = document.createElement("p");
  text.className = "small wrap";
  text.textContent = step.text;
  item.append(head, text);
  return item;
}
