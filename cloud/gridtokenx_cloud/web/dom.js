// Small helpers; every text that comes from outside goes through textContent.

export const byId = (id) => document.getElementById(id);

export function clone(templateId) {
  const node = byId(templateId).content.firstElementChild.cloneNode(true);
  const fields = {};
  for (const part of node.querySelectorAll("[data-f]")) fields[part.dataset.f] = part;
  return { node, fields };
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setFigure(node, number, unit) {
  const small = document.createElement("span");
  small.className = "unit";
  small.textContent = unit;
  node.replaceChildren(number, small);
}

export function svg(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  return node;
}
