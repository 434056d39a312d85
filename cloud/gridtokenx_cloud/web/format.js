// Numbers and times for people, in the browser's language.

const MINUS = "\u2212";
const three = new Intl.NumberFormat(undefined, { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const two = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const point = three.formatToParts(0.5).find((part) => part.type === "decimal").value;

// Times come from the server; a browser whose clock is off must not call its values old.
let skewMs = 0;
export const serverNow = () => Date.now() + skewMs;
export const setServerTime = (time) => (skewMs = Date.parse(time) - Date.now());

export const count = (number) => whole.format(number);

export const several = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

export const kwh = (wh) => (wh === null || wh === undefined ? "–" : `${three.format(wh / 1000)} kWh`);

export const energy = (wh) => [three.format(wh / 1000), "kWh"];

// Base units are whole numbers beyond what a float can hold: cut as text, never divided.
export function tokens(baseUnits, decimals) {
  const units = BigInt(baseUnits);
  const one = 10n ** BigInt(decimals);
  const rest = (units % one).toString().padStart(decimals, "0");
  const places = rest.replace(/0+$/, "").padEnd(Math.min(3, decimals), "0");
  return whole.format(units / one) + (places && decimals > 0 ? point + places : "");
}

// The meter's own sign: positive = from the grid, negative = to the grid.
export function power(watts) {
  const size = Math.abs(watts);
  const sign = watts > 0 ? "+" : watts < 0 ? MINUS : "";
  return size < 1000 ? [sign + whole.format(size), "W"] : [sign + two.format(size / 1000), "kW"];
}

export function range(values) {
  const [low, high] = [power(Math.min(...values)), power(Math.max(...values))];
  return `${low.join("\u00a0")} to ${high.join("\u00a0")}`;
}

export const flow = (watts) => (watts > 0 ? "import" : watts < 0 ? "export" : "none");

export const FLOW_WORDS = {
  import: "importing from the grid",
  export: "exporting to the grid",
  none: "nothing flows to or from the grid",
};
export const FLOW_ARROWS = { import: "↓", export: "↑", none: "·" };

export function when(time) {
  const moment = new Date(time);
  return serverNow() - moment < 20 * 3600e3 ? clock.format(moment) : day.format(moment);
}

export const minute = (ms) => clock.format(new Date(ms));

export function age(ms) {
  const seconds = Math.max(0, Math.round((serverNow() - ms) / 1000));
  if (seconds < 3) return "just now";
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return day.format(new Date(ms));
}

export const shorten = (text) => (text.length > 20 ? `${text.slice(0, 8)}…${text.slice(-8)}` : text);
