// Makes elements. Styles are set one by one, because the page's policy forbids style attributes.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (["value", "checked", "disabled", "textContent"].includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// h("button", {class: "x", onclick: f, style: {width: "3px"}}, "text", node, [nodes])
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

// Replaces the children of a node; keeps the focus on the child with the same data-focus.
export function fill(node, ...children) {
  const key = node.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  node.replaceChildren();
  build(node, null, children);
  if (key) node.querySelector(`[data-focus="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  return node;
}

// A row of exclusive choices: choice({a: "Text"}, "a", (key) => ..., "label").
export function choice(options, chosen, onpick, label) {
  const pick = (key) => h("button", {
    type: "button", "aria-pressed": String(key === chosen), "data-focus": key, onclick: () => onpick(key),
  }, options[key]);
  return h("span", { class: "choice", role: "group", "aria-label": label }, Object.keys(options).map(pick));
}
