// The steps of a proof; no page, no network. A step: {name, state: "ok" | "bad" | "open", text}.

const DOMAIN = "gridtokenx/v1\n";
const MARK = ',"sig":"';
const TAIL = MARK.length + 86 + 2;
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const MEMO = /^gm1:(\d{1,19}):(\d{1,10}):(\d{1,10}):(\d{1,10}):([A-Za-z0-9_-]{43})$/;
const MOST_PATH = 64;
const ascii = new TextEncoder();

export async function checkProof(text, trustedGateway, subtle) {
  const proof = readProof(text);
  if (proof === null) return [bad("Proof", "this is no proof as gtx-cloud prints it")];
  if (!subtle) {
    const text = "this browser checks only pages that came over https (or from localhost)";
    return [ok("Proof", "complete"), open("Browser", text)];
  }
  const root = await rootOf(proof, subtle);
  const path = `line ${proof.index + 1} of ${proof.leaves}, ${proof.path.length} hashes, root ${root}`;
  return [
    ok("Proof", describe(proof.line)),
    await checkSignature(proof, trustedGateway, subtle),
    root === null ? bad("Hash path", "it has the wrong length") : ok("Hash path", path),
    checkMemo(proof, root),
  ];
}

export function readProof(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  const path = Array.isArray(value?.path) ? value.path.map((node) => bytesOf(node, 32)) : null;
  const numbers = [value?.index, value?.leaves, value?.batch_id];
  const good = value?.v === 1 && path !== null && path.length <= MOST_PATH && !path.includes(null)
    && numbers.every((n) => Number.isSafeInteger(n) && n >= 0) && typeof value.line === "string"
    && /^[\x20-\x7e]+$/.test(value.line) && typeof value.transaction === "string";
  return good ? { ...value, path } : null;
}

async function checkSignature(proof, trustedGateway, subtle) {
  const name = "Signature";
  const gateway = trustedGateway || proof.gateway;
  const key = decodeKey(gateway || "");
  if (key === null) return open(name, "the proof names no gateway; enter the key you trust");
  if (proof.line.slice(-TAIL, -TAIL + MARK.length) !== MARK || !proof.line.endsWith('"}')) {
    return bad(name, "the line carries none");
  }
  const signature = bytesOf(proof.line.slice(-88, -2).replaceAll("-", "+").replaceAll("_", "/"), 64);
  if (signature === null) return bad(name, "the line carries none");
  const signed = ascii.encode(`${DOMAIN}${proof.line.slice(0, -TAIL)}}`);
  let holds;
  try {
    const imported = await subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
    holds = await subtle.verify({ name: "Ed25519" }, imported, signature, signed);
  } catch {
    return open(name, "this browser can't check Ed25519; use a newer one, or gtx-cloud verify-proof");
  }
  const whose = trustedGateway ? "the gateway you trust" : `gateway ${gateway}`;
  return holds ? ok(name, `made by ${whose}`) : bad(name, `not made by ${whose}`);
}

function checkMemo(proof, root) {
  const name = "Memo";
  const found = MEMO.exec(typeof proof.memo === "string" ? proof.memo : "");
  if (root === null) return bad(name, "there is no root to compare");
  if (found === null) return open(name, `the memo of the transaction must end in ${root}`);
  const same = found[5] === root && Number(found[2]) === proof.leaves
    && Number(found[1]) === proof.batch_id;
  return same
    ? ok(name, `names batch ${found[1]}, ${found[2]} readings and this root`)
    : bad(name, "it names another batch, number of readings or root");
}

// RFC 9162, section 2.1.3.2.
async function rootOf(proof, subtle) {
  const hash = async (...parts) => new Uint8Array(await subtle.digest("SHA-256", join(parts)));
  let { index } = proof;
  let last = proof.leaves - 1;
  if (index > last) return null;
  let node = await hash(Uint8Array.of(0), ascii.encode(proof.line));
  for (const sibling of proof.path) {
    if (last === 0) return null;
    if (index % 2 === 1 || index === last) {
      node = await hash(Uint8Array.of(1), sibling, node);
      while (index % 2 === 0 && index > 0) {
        index = Math.floor(index / 2);
        last = Math.floor(last / 2);
      }
    } else {
      node = await hash(Uint8Array.of(1), node, sibling);
    }
    index = Math.floor(index / 2);
    last = Math.floor(last / 2);
  }
  if (last !== 0) return null;
  return btoa(String.fromCharCode(...node)).replaceAll("+", "-").replaceAll("/", "_").slice(0, 43);
}

function describe(line) {
  try {
    const { meter_id, seq, export_wh, import_wh } = JSON.parse(line);
    return `meter ${meter_id}, reading ${seq}: ${export_wh} Wh exported, ${import_wh} Wh imported`;
  } catch {
    return "complete";
  }
}

function join(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function bytesOf(text, length) {
  try {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return bytes.length === length ? bytes : null;
  } catch {
    return null;
  }
}

function decodeKey(text) {
  if (!/^[1-9A-HJ-NP-Za-km-z]{32,44}$/.test(text)) return null;
  let number = 0n;
  for (const character of text) number = number * 58n + BigInt(ALPHABET.indexOf(character));
  if (number >> 256n) return null;
  const hex = number.toString(16).padStart(64, "0");
  return Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
}

const ok = (name, text) => ({ name, state: "ok", text });
const bad = (name, text) => ({ name, state: "bad", text });
const open = (name, text) => ({ name, state: "open", text });
