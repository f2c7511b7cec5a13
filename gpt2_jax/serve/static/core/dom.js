// Makes elements. Styles are set one by one, because the page's policy forbids style attributes.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = ["value", "checked", "disabled", "textContent"];

const isPlain = (value) => value && Object.getPrototypeOf(value) === Object.prototype;

function set(node, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === "t" || name === "named") node.dataset[name] = value;
  else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else if (name === "style") {
    for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
  } else if (PROPERTIES.includes(name)) node[name] = value;
  else node.setAttribute(name, value === true ? "" : value);
}

function build(node, parts) {
  const [first, ...rest] = parts;
  const attributes = isPlain(first) ? first : {};
  for (const [name, value] of Object.entries(attributes)) set(node, name, value);
  const children = (isPlain(first) ? rest : parts).flat(Infinity);
  node.append(...children.filter((x) => x !== null && x !== undefined && x !== false));
  return node;
}

// h("button.small.quiet", {onclick: f, style: {width: "3px"}}, "text", node, [nodes]);
// {t: "key"} and {named: "key"} are texts that `translate` writes: the content, the aria-label.
export function h(tag, ...parts) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (name === "button") node.type = "button";
  node.classList.add(...classes);
  return build(node, parts);
}

export const s = (tag, ...parts) => build(document.createElementNS(SVG, tag), parts);

// Writes the texts of the elements within a root that were made with `t` or `named`.
export function translate(root, t) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-named]")) {
    node.setAttribute("aria-label", t(node.dataset.named));
  }
}

// Replaces the children of a node; keeps the focus on the child with the same data-focus.
export function fill(node, ...children) {
  const key = node.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  node.replaceChildren();
  build(node, [null, ...children]);
  if (key) node.querySelector(`[data-focus="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  return node;
}

// A row of exclusive choices: choice({a: "Text"}, "a", (key) => ..., "label").
export function choice(options, chosen, onpick, label) {
  const pick = (key) =>
    h(
      "button",
      { "aria-pressed": String(key === chosen), "data-focus": key, onclick: () => onpick(key) },
      options[key],
    );
  return h("span.choice", { role: "group", "aria-label": label }, Object.keys(options).map(pick));
}
