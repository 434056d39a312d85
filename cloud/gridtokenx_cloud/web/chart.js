// Power of the last minutes as a small SVG: import above the line, export below.

import { svg } from "./dom.js";
import { power } from "./format.js";

export const WINDOW_MS = 10 * 60_000;
const WIDTH = 600;
const HEIGHT = 92;
const EDGE = 4;
const GAP_MS = 90_000;

// Runs of points of one sign; a crossing belongs to both sides, a gap in time to none.
function runs(points) {
  const found = [];
  let run = null;
  let last = null;
  for (const point of points) {
    const side = point.w < 0 ? "export" : "import";
    if (last === null || point.t - last.t > GAP_MS) {
      run = null;
    } else if (run.side !== side) {
      const part = last.w / (last.w - point.w);
      const crossing = { t: last.t + (point.t - last.t) * part, w: 0 };
      run.points.push(crossing);
      run = { side, points: [crossing] };
      found.push(run);
    }
    if (run === null) {
      run = { side, points: [] };
      found.push(run);
    }
    run.points.push(point);
    last = point;
  }
  return found;
}

function scale(points, now) {
  const high = Math.max(0, ...points.map((point) => point.w));
  const low = Math.min(0, ...points.map((point) => point.w));
  const span = Math.max(high - low, 100);
  return {
    x: (t) => ((t - now + WINDOW_MS) / WINDOW_MS) * WIDTH,
    y: (w) => EDGE + ((high - w) / span) * (HEIGHT - 2 * EDGE),
  };
}

function describe(points) {
  const values = points.map((point) => point.w);
  const words = (watts) => power(watts).join(" ");
  return `Power over the last 10 minutes; lowest ${words(Math.min(...values))}, highest ${words(Math.max(...values))}, newest ${words(values.at(-1))}. Plus is import, minus is export.`;
}

export function draw(points, now) {
  const { x, y } = scale(points, now);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": describe(points) });
  const zero = y(0).toFixed(1);
  root.append(svg("line", { class: "zero", x1: 0, x2: WIDTH, y1: zero, y2: zero, "vector-effect": "non-scaling-stroke" }));
  for (const { side, points: part } of runs(points)) {
    const path = part.map((point) => `${x(point.t).toFixed(1)},${y(point.w).toFixed(1)}`).join(" L");
    const first = x(part[0].t).toFixed(1);
    const last = x(part.at(-1).t).toFixed(1);
    root.append(svg("path", { class: side, d: `M${first},${zero} L${path} L${last},${zero} Z` }));
    root.append(svg("path", { class: `line ${side}`, d: `M${path}`, "vector-effect": "non-scaling-stroke" }));
  }
  return root;
}
